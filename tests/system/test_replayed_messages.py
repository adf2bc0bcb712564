"""Messages of an agent that come twice, late or out of order: each has its one effect, and stale ones have none."""

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from processes import Installation, Rest, installed

from towline.v1 import agent_service_pb2 as pb
from towline.v1.agent_pb2 import AgentInfo
from towline.v1.agent_service_pb2_grpc import AgentServiceStub
from towline_agent.clock import SystemClock

Code = pb.Verdict.Code


@dataclass
class RawAgent:
    """Says what a scenario wants said, with the credential of an agent."""

    stub: Any
    credential: str = ""
    session_id: str = field(default_factory=SystemClock().new_id)

    def sync(self) -> pb.SyncResponse:
        """Opens or renews the session."""
        return self._call("Sync", pb.SyncRequest(session_id=self.session_id, info=AgentInfo(slots=4)))

    def pull(self, started: Sequence[pb.Lease] = (), want: int = 1) -> Sequence[pb.Offer]:
        """Returns the offers that come within 20 s."""
        wait = Duration(seconds=20)
        return self._call(
            "Pull", pb.PullRequest(session_id=self.session_id, want=want, wait=wait, started=started)
        ).offers

    def report(self, *results: pb.AttemptResult) -> list[Code]:
        """Returns the verdicts."""
        answer = self._call("Report", pb.ReportRequest(session_id=self.session_id, results=results))
        return [verdict.code for verdict in answer.verdicts]

    def log(self, lease: pb.Lease, *chunks: tuple[int, bytes]) -> list[pb.AppendLogsResponse]:
        """Returns the answers to chunks of a log."""
        requests = [pb.AppendLogsRequest(lease=lease, offset=offset, data=data) for offset, data in chunks]
        return list(self.stub.AppendLogs(iter(requests), metadata=self._metadata, timeout=30))

    @property
    def _metadata(self) -> Sequence[tuple[str, str]]:
        return (("authorization", f"Bearer {self.credential}"),)

    def _call(self, name: str, request: object) -> Any:
        return getattr(self.stub, name)(request, metadata=self._metadata, timeout=30)


@contextmanager
def enrolled(installation: Installation) -> Generator[RawAgent]:
    token = (installation.folder / "enrollment-token").read_text()
    with grpc.insecure_channel(installation.grpc) as channel:
        agent = RawAgent(AgentServiceStub(channel))
        agent.credential = agent.stub.Enroll(
            pb.EnrollRequest(token=token, name=f"raw-{agent.session_id}"), timeout=30
        ).credential
        agent.sync()
        yield agent


def result(offer: pb.Offer, output: str) -> pb.AttemptResult:
    return pb.AttemptResult(lease=offer.lease, outcome=pb.AttemptResult.SUCCEEDED, output_json=output.encode())


def start(installation: Installation) -> tuple[Rest, str]:
    rest = Rest(installation.http)
    rest.sign_in()
    nodes = [{"id": name, "type": "TEXT_TRANSFORM", "config": {"transform": "trim", "text": "x"}} for name in "ab"]
    workflow = rest.post("/workflows", {"name": "w", "dag": {"nodes": nodes, "edges": [{"from": "a", "to": "b"}]}})
    return rest, rest.post(f"/workflows/{workflow['id']}/execute", {})["id"]


def ended_steps(rest: Rest, run_id: str) -> list[str]:
    return [event["nodeId"] for event in rest.events(run_id) if event["type"] == "STEP_SUCCEEDED"]


def a_report_counts_once(installation: Installation, agent: RawAgent) -> None:
    rest, run_id = start(installation)
    [first] = agent.pull()
    forged = result(first, '{"text":"0"}')
    forged.lease.token = "guessed"
    assert agent.report(forged) == [Code.LEASE_LOST]
    said = result(first, '{"text":"1"}')
    assert agent.report(said, said) == [Code.ACCEPTED] * 2
    assert agent.report(said) == [Code.ACCEPTED]
    assert agent.report(result(first, '{"text":"2"}')) == [Code.ALREADY_REPORTED]
    # Its start is told late, in one message with the start of the next step.
    [second] = agent.pull(started=[first.lease])
    assert second.inputs_json == b'{"a":{"text":"1"}}'
    assert agent.report(said, result(second, '{"text":"3"}')) == [Code.ACCEPTED] * 2
    assert ended_steps(rest, run_id) == ["a", "b"]
    assert agent.report(said, result(second, '{"text":"4"}')) == [Code.ACCEPTED, Code.ALREADY_REPORTED]
    assert rest.get(f"/runs/{run_id}/steps/b")["output"] == {"text": "3"}


def what_an_earlier_holder_says_changes_nothing(installation: Installation, agent: RawAgent) -> None:
    rest, run_id = start(installation)
    [lost] = agent.pull()
    # It starts anew, as after a crash: what it held is lost, and given out again.
    agent.session_id = SystemClock().new_id()
    agent.sync()
    [current] = agent.pull(started=[lost.lease])
    assert (current.lease.attempt, current.lease.epoch) == (2, 2)
    assert current.execution_key != lost.execution_key
    late = result(lost, '{"text":"1"}')
    assert agent.report(late) == [Code.LEASE_LOST]
    assert agent.report(late, result(current, '{"text":"2"}'), late) == [
        Code.LEASE_LOST,
        Code.ACCEPTED,
        Code.LEASE_LOST,
    ]
    assert [answer.lease_lost for answer in agent.log(lost.lease, (0, b"1 O- late\n"))] == [True]
    assert rest.get(f"/runs/{run_id}/steps/a")["output"] == {"text": "2"}
    attempts = rest.get(f"/runs/{run_id}/steps/a")["attempts"]
    assert [attempt["state"] for attempt in attempts] == ["LOST", "SUCCEEDED"]
    rest.post(f"/runs/{run_id}/cancel")


def chunks_of_a_log_that_come_twice_or_too_early_leave_no_trace(installation: Installation, agent: RawAgent) -> None:
    rest, run_id = start(installation)
    [offer] = agent.pull()
    one, two = b"1 O- one\n", b"2 O- two\n"
    answers = agent.log(offer.lease, (0, one), (0, one), (len(one) * 2, two), (0, one + two), (0, one))
    assert answers[-1].next_offset == len(one + two)
    lines = [data["text"] for name, data in rest.stream(f"/runs/{run_id}/logs?nodeId=a") if name != "end"]
    assert lines == ["one", "two"]
    rest.post(f"/runs/{run_id}/cancel")


def the_time_for_a_confirmation_counts_from_the_request(installation: Installation, agent: RawAgent) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(agent.pull)
        rest, run_id = start(installation)
        [offer] = waiting.result()
    assert offer.confirm_within.ToTimedelta().total_seconds() >= 5.0
    rest.post(f"/runs/{run_id}/cancel")


CHECKS: list[Callable[[Installation, RawAgent], None]] = [
    a_report_counts_once,
    what_an_earlier_holder_says_changes_nothing,
    chunks_of_a_log_that_come_twice_or_too_early_leave_no_trace,
    the_time_for_a_confirmation_counts_from_the_request,
]


def test_messages_that_come_twice_late_or_out_of_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            for check in CHECKS:
                with enrolled(installation) as agent:
                    check(installation, agent)

    asyncio.run(scenario())
