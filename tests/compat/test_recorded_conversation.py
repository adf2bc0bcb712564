"""What the agent of the last release said then is understood today, and what it is answered means the same to it.

Messages are made and read with the contract of that time. Only what no two conversations share is put in their place:
the token, the credential, and the leases that are given out this time.
"""

import asyncio
from pathlib import Path
from typing import Any, cast

import conversation
import grpc.aio
import pytest
from conversation import Contract, Exchange
from google.protobuf.json_format import MessageToDict
from processes import Installation, Rest, installed

from towline.v1.agent_pb2 import AgentInfo
from towline.v1.agent_service_pb2 import EnrollRequest, SyncRequest
from towline_agent.control_plane import AgentUnsupported
from towline_agent.credentials import Credentials
from towline_agent.enrollment import Identity
from towline_agent.grpc_control_plane import GrpcControlPlane, GrpcLeaseRenewal
from towline_controlplane import protocol_versions

VOLATILE = {"lease", "executionKey", "workflowId", "ownerId", "confirmWithin", "agentId", "credential"}
"""Of an answer: what no two conversations share."""
UNREAD = {"serverVersion", "interval", "leaseDuration", "limits"}
"""Of an answer: settings of the server, which may change; that they are there is checked."""
LeaseKey = tuple[str, int]


class Replay:
    """One agent of that time, as far as its words go."""

    def __init__(self, server: str, token: str) -> None:
        self._contract = Contract()
        self._channel: Any = grpc.aio.insecure_channel(server)
        self._token = token
        self._metadata: list[tuple[str, str]] = []
        self._leases: dict[LeaseKey, Any] = {}
        self._logs: Any = None
        self._session_id = ""

    async def say(self, exchange: Exchange) -> None:
        """Repeats a request, and checks that the answer means what it did."""
        request: Any = self._contract.request(exchange.method, exchange.request)
        self._put_in_place(request)
        answer: Any = self._contract.response(exchange.method, await self._send(exchange.method, request))
        then: Any = self._contract.response(exchange.method, exchange.response)
        if exchange.method == "Enroll":
            self._metadata = [("authorization", f"Bearer {answer.credential}")]
        offers: list[Any] = [*getattr(answer, "offers", ())]
        await self._wait_for(offers, [*getattr(then, "offers", ())])
        assert [meaning(offer) for offer in offers] == [meaning(offer) for offer in getattr(then, "offers", ())]
        assert meaning(answer) == meaning(then), exchange.method

    async def close(self) -> None:
        """Ends the conversation."""
        if self._logs is not None:
            await self._logs.done_writing()
        await self._channel.close()

    def _put_in_place(self, request: Any) -> None:
        if hasattr(request, "token"):
            request.token = self._token
        self._session_id = getattr(request, "session_id", self._session_id)
        for lease in leases_in(request):
            lease.CopyFrom(self._leases[lease.node_id, lease.attempt])

    async def _wait_for(self, offers: list[Any], expected: list[Any]) -> None:
        """A retry that was due at once then may be due in a moment now: it is asked for."""
        while len(offers) < len(expected):
            pull: Any = self._contract.request("Pull", b"")
            pull.session_id, pull.want = self._session_id, 1
            pull.wait.seconds = 5
            answer: Any = self._contract.response("Pull", await self._send("Pull", pull))
            offers.extend(answer.offers)
        for offer in offers:
            assert offer.lease.token
            assert offer.limits.timeout.seconds
            assert offer.confirm_within.seconds
            self._leases[offer.lease.node_id, offer.lease.attempt] = offer.lease

    async def _send(self, method: str, request: Any) -> bytes:
        path = f"/{conversation.SERVICE}/{method}"
        if method != "AppendLogs":
            return await self._channel.unary_unary(path)(request.SerializeToString(), metadata=self._metadata)
        if self._logs is None:
            self._logs = self._channel.stream_stream(path)(metadata=self._metadata)
        await self._logs.write(request.SerializeToString())
        return await self._logs.read()


def leases_in(message: Any) -> list[Any]:
    """Returns the leases that a request presents."""
    own = [message.lease] if "lease" in message.DESCRIPTOR.fields_by_name else []
    listed = [entry.lease for name in ("results", "held") for entry in getattr(message, name, ())]
    return [*own, *listed, *getattr(message, "started", ())]


def meaning(message: Any) -> Any:
    """Returns what an answer tells the agent, without what is told in no other conversation."""

    def stripped(value: Any) -> Any:
        match value:
            case dict():
                fields = cast("dict[str, Any]", value)
                ignored = VOLATILE | UNREAD | {"offers"}
                return {key: stripped(each) for key, each in fields.items() if key not in ignored}
            case list():
                return [stripped(each) for each in cast("list[Any]", value)]
            case _:
                return value

    return stripped(MessageToDict(message))


def test_the_recording_is_of_an_agent_from_before_versions_were_told() -> None:
    exchanges = conversation.load()
    assert {exchange.method for exchange in exchanges} == {"Enroll", "Sync", "Pull", "Report", "AppendLogs"}
    introduced: Any = Contract().request("Sync", next(each for each in exchanges if each.method == "Sync").request)
    assert introduced.info.slots == 1
    assert "protocol_version" not in introduced.info.DESCRIPTOR.fields_by_name
    assert protocol_versions.UNTOLD >= protocol_versions.OLDEST, "record the next release"


def test_its_words_lead_to_the_same_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            rest, run_id = await asyncio.to_thread(start, installation)
            replay = Replay(installation.grpc, (tmp_path / "enrollment-token").read_text())
            for exchange in conversation.load():
                await replay.say(exchange)
            await replay.close()
            history = await asyncio.to_thread(lambda: [event["type"] for event in rest.events(run_id)])
            assert history[-1] == "RUN_SUCCEEDED"
            steps = rest.get(f"/runs/{run_id}/steps")["steps"]
            assert {"handled": True} in [step.get("output") for step in steps]
            lines = [line for name, line in rest.stream(f"/runs/{run_id}/logs") if name != "end"]
            assert sorted(line["text"] for line in lines) == ["HELLO", "e", "failing", "failing"]

    asyncio.run(scenario())


def start(installation: Installation) -> tuple[Rest, str]:
    rest = Rest(installation.http)
    rest.sign_in()
    workflow = rest.post("/workflows", {"name": "recorded", "dag": conversation.DAG})
    return rest, rest.post(f"/workflows/{workflow['id']}/execute", {"input": {"x": 1}})["id"]


def test_an_agent_that_is_not_understood_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            control_plane = GrpcControlPlane(installation.grpc)
            token = (tmp_path / "enrollment-token").read_text()
            enrolled = await control_plane.enroll(EnrollRequest(token=token, name="future"))
            await control_plane.close()
            identity = Identity(enrolled.agent_id, enrolled.credential)
            renewal = GrpcLeaseRenewal(installation.grpc, Credentials(identity, lambda _: None))
            info = AgentInfo(slots=1, protocol_version=protocol_versions.CURRENT + 1)
            with pytest.raises(AgentUnsupported, match="upgrade the control planes"):
                await asyncio.to_thread(renewal.sync, SyncRequest(session_id="0123456789ab", info=info), 10.0)
            renewal.close()

    asyncio.run(scenario())
