"""A whole control plane on a port, a user, and an agent that speaks to it by the agent's own client."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpc import aio
from service_rig import Caller

from towline.v1.agent_service_pb2 import (
    AttemptResult,
    Lease,
    Offer,
    PullRequest,
    PutArtifactResponse,
    ReportRequest,
    ResultArtifact,
    Verdict,
)
from towline_agent.credentials import Credentials
from towline_agent.enrollment import Identity
from towline_agent.grpc_control_plane import GrpcControlPlane
from towline_controlplane.composition import ControlPlane, compose
from towline_controlplane.model import AgentRecord
from towline_controlplane.settings import Settings
from towline_controlplane.store import agents
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.store.database import Database
from towline_controlplane.tokens import fingerprint, new_agent_credential
from towline_migrations import upgrade

STEP: Mapping[str, Any] = {"type": "TEXT_TRANSFORM", "config": {"transform": "uppercase", "text": "x"}}
LIMIT_MB = 1


def artifact(name: str, data: bytes) -> ResultArtifact:
    """What an agent says of a file."""
    return ResultArtifact(name=name, size_bytes=len(data), digest=hashlib.sha256(data).hexdigest())


def client(address: str, credential: str) -> GrpcControlPlane:
    """The agent's own client of a control plane."""
    return GrpcControlPlane(address, Credentials(Identity("agent", credential), lambda identity: None))


def pieces(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    """The bytes as they are sent."""
    return (data[start : start + size] for start in range(0, len(data), size))


@dataclass(slots=True)
class Agent:
    """An enrolled agent with an open session."""

    client: GrpcControlPlane
    session_id: str
    credential: str

    def at(self, address: str) -> "Agent":
        """Returns the same agent, connected to another control plane."""
        return Agent(client(address, self.credential), self.session_id, self.credential)

    async def pull(self, want: int = 10) -> list[Offer]:
        """Returns what can be had now."""
        return list((await self.client.pull(PullRequest(session_id=self.session_id, want=want))).offers)

    async def put(self, lease: Lease, name: str, data: bytes, offset: int = 0) -> PutArtifactResponse:
        """Sends a file from an offset on."""
        return await self.client.put_artifact(lease, artifact(name, data), offset, pieces(data[offset:]))

    async def report(
        self, lease: Lease, *artifacts: ResultArtifact, outcome: AttemptResult.Outcome = AttemptResult.SUCCEEDED
    ) -> Verdict.Code:
        """Ends an attempt."""
        result = AttemptResult(lease=lease, outcome=outcome, artifacts=artifacts)
        if outcome == AttemptResult.SUCCEEDED:
            result.output_json = b'{"text":"X"}'
        else:
            result.failure.code = "PLAYED"
        request = ReportRequest(session_id=self.session_id, results=[result])
        return (await self.client.report(request)).verdicts[0].code

    async def make(self, offer: Offer, files: Mapping[str, bytes]) -> None:
        """Succeeds with these files."""
        for name, data in files.items():
            assert (await self.put(offer.lease, name, data)).complete
        named = [artifact(name, data) for name, data in files.items()]
        assert await self.report(offer.lease, *named) == Verdict.ACCEPTED

    async def read(self, offer: Offer, number: int = 0, offset: int = 0) -> bytes:
        """Fetches an input of an offer."""
        wanted = offer.input_artifacts.artifacts[number]
        return b"".join([chunk async for chunk in self.client.get_artifact(offer.lease, wanted, offset)])


@dataclass(slots=True)
class ArtifactRig:
    """What a scenario works with."""

    folder: Path
    database: Database
    control_plane: ControlPlane
    channel: aio.Channel
    address: str

    async def user(self, name: str = "ada") -> Caller:
        """Returns a signed-in user."""
        who = {"email": f"{name}@example.com", "password": "correct horse"}
        await Caller(self.channel).call("AuthService/Register", None, name=name, **who)
        signed_in = await Caller(self.channel).call("AuthService/Login", **who)
        return Caller(self.channel, signed_in.access_token)

    async def agent(self, name: str = "agent-1") -> Agent:
        """Returns an enrolled agent with an open session."""
        credential = new_agent_credential()
        record = AgentRecord(f"id-of-{name}", name, fingerprint(credential), create_time=0)
        session_id = f"{abs(hash(name)):016x}"

        def enroll(tx: Any) -> None:
            agents.insert_agent(tx, record)
            agents.open_session(tx, record.id, session_id, SessionInfo(8, {}), tx.now + 3_600_000_000)

        await self.database.write(enroll)
        return Agent(client(self.address, credential), session_id, credential)

    async def start(self, user: Caller, *nodes: Mapping[str, Any], edges: tuple[tuple[str, str], ...] = ()) -> str:
        """Starts a run of steps `a`, `b`, …; returns its id."""
        dag = {
            "nodes": [{"id": chr(97 + number), **STEP, **node} for number, node in enumerate(nodes or ({},))],
            "edges": [{"from": source, "to": target} for source, target in edges],
        }
        created = await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)
        return (await user.call("RunService/StartRun", workflowId=created.workflow.id, input={})).run.id


@asynccontextmanager
async def control_plane(folder: Path, **others: str) -> AsyncGenerator[ArtifactRig]:
    """Serves until the scenario is over."""
    url = f"sqlite:///{folder / 'towline.db'}"
    await asyncio.to_thread(upgrade, url)
    settings = Settings.model_validate(
        {
            "JWT_SECRET": "a secret of the tests, long enough",
            "TOWLINE_DATA_DIR": folder,
            "GRPC_PORT": 0,
            "TOWLINE_BCRYPT_COST": 4,
            "TOWLINE_ARTIFACT_LIMIT_MB": LIMIT_MB,
            **others,
        }
    )
    settings.spool_folder.mkdir(parents=True, exist_ok=True)
    database = Database.open(url)
    serving = compose(settings, database)
    duties = [asyncio.ensure_future(duty()) for duty in serving.duties]
    address = f"127.0.0.1:{await serving.server.start()}"
    try:
        async with aio.insecure_channel(address) as channel:
            yield ArtifactRig(folder, database, serving, channel, address)
    finally:
        await serving.server.stop(0)
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)
        await database.close()


def serve(folder: Path, scenario: Callable[[ArtifactRig], Coroutine[Any, Any, None]], **others: str) -> None:
    """Runs a scenario against a fresh control plane."""

    async def run() -> None:
        async with asyncio.timeout(60), control_plane(folder, **others) as rig:
            await scenario(rig)

    asyncio.run(run())
