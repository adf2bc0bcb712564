"""Which waiting agents look when a step becomes ready, on this control plane or on another; nothing polls here."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.json_format import ParseDict

from towline.v1.agent_service_pb2 import PullRequest, PullResponse
from towline.v1.run_service_pb2 import StartRunRequest
from towline.v1.workflow_service_pb2 import CreateWorkflowRequest
from towline_controlplane import matching
from towline_controlplane.bus import STOPPING_TOPIC, InProcessBell, InProcessDoorbell
from towline_controlplane.composition import Parts, assemble
from towline_controlplane.ids import new_id
from towline_controlplane.model import AgentRecord, Role, User
from towline_controlplane.services import agent_protocol
from towline_controlplane.services.callers import Context, enter_agent, enter_user
from towline_controlplane.settings import Settings
from towline_controlplane.sources import Sources
from towline_controlplane.store import agents, users
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.store.database import Database

PATIENCE_SECONDS = 60.0
FOREVER_SECONDS = 3600.0
NO_CONTEXT = cast("Context", None)


class WatchedDoorbell(InProcessDoorbell):
    """A doorbell of which a test knows how often a Pull began to wait."""

    def __init__(self) -> None:
        self.others: list[InProcessDoorbell] = []
        super().__init__(self._tell_others)
        self.waits = 0
        self.changed = asyncio.Condition()

    def listen(self, topics: Iterable[str], in_turn: Iterable[str] = ()) -> InProcessBell:
        names = list(topics)
        return WatchedBell(self, names, in_turn) if STOPPING_TOPIC in names else super().listen(names, in_turn)

    async def has_seen(self, waits: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self.changed:
            await self.changed.wait_for(lambda: self.waits >= waits)

    def _tell_others(self, calls: Mapping[str, int]) -> None:
        for other in self.others:
            other.hear(calls)


class WatchedBell(InProcessBell):
    def __init__(self, doorbell: WatchedDoorbell, topics: Iterable[str], in_turn: Iterable[str]) -> None:
        super().__init__(doorbell, topics, in_turn)
        self._watched = doorbell

    async def wait(self, timeout_seconds: float) -> bool:
        async with self._watched.changed:
            self._watched.waits += 1
            self._watched.changed.notify_all()
        return await super().wait(timeout_seconds)


class Replica:
    """A control plane without its server; what it is asked comes from one user, or from the agent that is named."""

    def __init__(self, database: Database, doorbell: WatchedDoorbell, parts: Parts) -> None:
        self.database = database
        self.doorbell = doorbell
        self.parts = parts

    def service(self, name: str) -> Any:
        return next(each.servicer for each in self.parts.services if each.descriptor.name == name)

    async def workflow(self, **node: Any) -> str:
        dag = {"nodes": [{"id": "a", "type": "TEXT_TRANSFORM", "config": {"transform": "trim", "text": "x"}, **node}]}
        request = ParseDict({"name": "w", "dag": dag}, CreateWorkflowRequest())
        created = await self.service("WorkflowService").CreateWorkflow(request, NO_CONTEXT)
        return created.workflow.id

    async def start(self, workflow_id: str) -> None:
        request = ParseDict({"workflowId": workflow_id, "input": {}}, StartRunRequest())
        await self.service("RunService").StartRun(request, NO_CONTEXT)

    async def agent(self, name: str, labels: Mapping[str, str]) -> AgentRecord:
        """Enrolls an agent with one slot and an open session."""
        record = AgentRecord(new_id(), name, f"credential of {name}".ljust(64, "."), 0)
        info = SessionInfo(1, dict(labels))
        session_id = new_id()

        def enroll(tx: Any) -> AgentRecord | None:
            agents.insert_agent(tx, record)
            agents.open_session(tx, record.id, session_id, info, tx.now + int(FOREVER_SECONDS * 1e6))
            return agents.get_agent(tx, record.id)

        found = await self.database.write(enroll)
        assert found is not None
        return found

    async def pull(self, agent: AgentRecord) -> PullResponse:
        enter_agent(agent)
        request = ParseDict({"sessionId": agent.session_id, "want": 1, "wait": "25s"}, PullRequest())
        return await self.parts.agents.Pull(request, NO_CONTEXT)

    async def pulling(self, count: int, **labels: str) -> list["asyncio.Task[PullResponse]"]:
        """Starts Pulls of so many agents; returns once all of them wait."""
        tasks = [asyncio.create_task(self.pull(await self.agent(f"agent-{number}", labels))) for number in range(count)]
        await self.doorbell.has_seen(waits=count)
        return tasks


@contextlib.asynccontextmanager
async def replica(folder: Path, url: str) -> AsyncGenerator[Replica]:
    database, doorbell = Database.open(url), WatchedDoorbell()
    settings = Settings.model_validate({"JWT_SECRET": "a secret of the tests, long enough", "TOWLINE_DATA_DIR": folder})
    settings.spool_folder.mkdir(parents=True, exist_ok=True)
    parts = assemble(settings, database, doorbell, Sources())
    duties = [asyncio.ensure_future(duty()) for duty in parts.duties]
    try:
        yield Replica(database, doorbell, parts)
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)
        await database.close()


async def sign_in(replica: Replica) -> None:
    user = User(new_id(), "o@example.com", "O", f"$2b${'x' * 56}", Role.USER, 1, 0)
    await replica.database.write(lambda tx: users.insert_user(tx, user))
    enter_user(user)


@pytest.fixture(autouse=True)
def nothing_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_protocol, "_POLL_SECONDS", FOREVER_SECONDS)
    monkeypatch.setattr(matching, "_REFRESH_SECONDS", FOREVER_SECONDS)


def test_one_step_makes_one_agent_look_and_not_all(tmp_path: Path, database_url: str) -> None:
    async def scenario() -> None:
        async with replica(tmp_path, database_url) as it:
            await sign_in(it)
            workflow_id = await it.workflow()
            await it.start(workflow_id)
            await it.pull(await it.agent("who makes the queue known", {}))
            pulls = await it.pulling(20)
            await it.start(workflow_id)
            (first,), others = await asyncio.wait(pulls, return_when=asyncio.FIRST_COMPLETED)
            assert len(first.result().offers) == 1
            # As it got all that it wanted, one more has looked.
            await it.doorbell.has_seen(waits=21)
            it.parts.agents.end_long_polls()
            assert [len(pull.offers) for pull in await asyncio.gather(*others)] == [0] * 19
            assert it.doorbell.waits == 21

    asyncio.run(scenario())


def test_an_agent_elsewhere_gets_a_step_of_a_queue_that_did_not_exist(tmp_path: Path, postgres_url: str) -> None:
    async def scenario() -> None:
        async with replica(tmp_path / "near", postgres_url) as near, replica(tmp_path / "far", postgres_url) as far:
            near.doorbell.others, far.doorbell.others = [far.doorbell], [near.doorbell]
            await sign_in(near)
            (pull,) = await far.pulling(1, gpu="yes")
            await near.start(await near.workflow(labels={"gpu": "yes"}))
            async with asyncio.timeout(PATIENCE_SECONDS / 3):
                assert len((await pull).offers) == 1

    asyncio.run(scenario())
