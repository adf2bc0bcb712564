"""A control plane without its server: real store, real orchestrator, and agents that are a few lines long."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from towline_controlplane.audit.auditor import audit_database
from towline_controlplane.bus import InProcessDoorbell
from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.handouts import Served, StepOffer
from towline_controlplane.ids import new_id
from towline_controlplane.model import (
    AgentRecord,
    Event,
    Failure,
    FailureClass,
    Lease,
    PluginRef,
    Role,
    Run,
    Step,
    User,
    Workflow,
    WorkflowVersion,
)
from towline_controlplane.orchestrator import Orchestrator, RunStart
from towline_controlplane.requirements import Size
from towline_controlplane.rooms import Claim
from towline_controlplane.store import agents, queues, runs, users, workflows
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.submissions import Report, Verdict
from towline_controlplane.tokens import fingerprint
from towline_dag.choices import SideEffects
from towline_migrations import upgrade

LEASE_SECONDS = 30.0
OWNER = "owner-1"


@dataclass(slots=True)
class FakeClock:
    """The database's clock in a test (µs)."""

    now: int = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


@dataclass(slots=True)
class Rig:
    """What a scenario works with."""

    database: Database
    doorbell: InProcessDoorbell
    orchestrator: Orchestrator
    clock: FakeClock
    versions: dict[str, WorkflowVersion] = field(default_factory=dict[str, WorkflowVersion])

    async def agent(self, name: str = "agent-1", slots: int = 8) -> "FakeAgent":
        """Enrolls an agent with an open session."""
        record = AgentRecord(id=f"id-of-{name}", name=name, credential_hash=fingerprint(name), create_time=self.clock())
        await self.database.write(lambda tx: agents.insert_agent(tx, record))
        agent = FakeAgent(self, record.id, slots)
        await agent.open_session()
        return agent

    async def start(self, nodes: Sequence[str | Mapping[str, object]], edges: Sequence[tuple[str, str]] = ()) -> Run:
        """Creates a workflow of these nodes and starts a run of it."""
        return await self.start_version(await self.workflow(nodes, edges))

    async def start_version(
        self, version: WorkflowVersion, key: str | None = None, digest: str = "", **changes: Any
    ) -> Run:
        """Starts a run, with an idempotency key if one is given; `changes` are those of its RunStart."""
        start = RunStart(
            workflow_id=version.workflow_id,
            version=version,
            owner_id=OWNER,
            input_json="{}",
            priority=0,
            labels={},
            request_id=key,
            request_digest=digest,
        )
        return await self.orchestrator.start_run(replace(start, **changes))

    async def workflow(
        self,
        nodes: Sequence[str | Mapping[str, object]],
        edges: Sequence[tuple[str, str]] = (),
        conditions: Mapping[tuple[str, str], Mapping[str, str]] | None = None,
        **policies: object,
    ) -> WorkflowVersion:
        """Creates a workflow and returns its version; `conditions` are by edge, `policies` are of its runs."""
        specs = [{"id": n} if isinstance(n, str) else n for n in nodes]
        known = conditions or {}
        document = {
            "nodes": [{"type": "NOOP", **spec} for spec in specs],
            "edges": [{"from": edge[0], "to": edge[1], "condition": known.get(edge, {})} for edge in edges],
            **policies,
        }
        ids = [str(spec["id"]) for spec in specs]
        plugin = PluginRef("NOOP", "", "", "python:noop:main", SideEffects.IDEMPOTENT)
        workflow_id, version_id = new_id(), new_id()
        version = WorkflowVersion(
            version_id, workflow_id, 1, json.dumps(document), dict.fromkeys(ids, plugin), self.clock()
        )
        workflow = Workflow(workflow_id, OWNER, "w", "", 1, version_id, None, self.clock(), self.clock())

        def store(tx: Transaction) -> None:
            workflows.insert_workflow(tx, workflow, version)

        await self.database.write(store)
        return version

    async def run(self, run_id: str) -> Run:
        """Returns a run as stored."""
        run = await self.database.read(lambda tx: runs.get_run(tx, run_id, None))
        assert run is not None
        return run

    async def steps(self, run_id: str) -> dict[str, Step]:
        """Returns the steps of a run as stored."""
        found = await self.database.read(lambda tx: runs.list_steps(tx, run_id, -1, 20_000))
        return {step.node_id: step for step in found}

    async def events(self, run_id: str) -> list[Event]:
        """Returns the history of a run as stored."""
        return await self.database.read(lambda tx: runs.list_events(tx, run_id, 0, 100_000))

    async def sizes(self) -> dict[str, Size]:
        """Returns what the steps of each queue take."""
        found = await self.database.read(queues.all_queues)
        return {queue_id: asked.size for queue_id, asked in found.items()}

    async def queue_ids(self) -> frozenset[str]:
        """Returns the ids of all queues."""
        return frozenset(await self.database.read(queues.all_queues))


@dataclass(slots=True)
class FakeAgent:
    """Claims and reports as an agent does."""

    rig: Rig
    id: str
    slots: int
    session_id: str = field(default_factory=new_id)

    async def open_session(self, **info: Any) -> None:
        """Opens this session with a fresh lease."""
        expire = self.rig.clock() + int(LEASE_SECONDS * 1_000_000)
        said = SessionInfo(self.slots, {}, **info)
        await self.rig.database.write(lambda tx: agents.open_session(tx, self.id, self.session_id, said, expire))

    async def renew(self) -> None:
        """Renews the lease."""
        expire = self.rig.clock() + int(LEASE_SECONDS * 1_000_000)
        await self.rig.database.write(lambda tx: agents.renew_if_session(tx, self.id, self.session_id, expire))

    async def claim(self, want: int = 8, free_memory_mb: int | None = None) -> Claim:
        """Returns a claim for everything."""
        queues = await self.rig.sizes()
        return Claim(self.id, self.session_id, frozenset(queues), want, 5.0, queues, free_memory_mb)

    async def pull(self, want: int = 8, free_memory_mb: int | None = None) -> list[StepOffer]:
        """Returns what can be had now; whoever asks has just renewed its lease."""
        return list((await self.ask(want, free_memory_mb)).offers)

    async def ask(self, want: int = 8, free_memory_mb: int | None = None) -> Served:
        """Returns all that is said of what can be had now."""
        await self.renew()
        _, served = await self.rig.orchestrator.exchange((), (), await self.claim(want, free_memory_mb))
        return served

    async def start(self, offer: StepOffer) -> None:
        """Confirms an offer."""
        await self.rig.orchestrator.confirm([self.lease(offer)])

    async def report(self, offer: StepOffer, end: EndAttempt | None = None) -> Verdict:
        """Reports an end, a success unless told otherwise."""
        verdicts, _ = await self.rig.orchestrator.exchange((), [self.result(offer, end)], None)
        assert isinstance(verdicts[0], Verdict)
        return verdicts[0]

    def result(self, offer: StepOffer, end: EndAttempt | None = None) -> Report:
        """Returns the report of an offer."""
        return Report(self.lease(offer), end or succeeded(offer.step.node_id))

    def lease(self, offer: StepOffer) -> Lease:
        """Returns the lease of an offer as this agent presents it."""
        attempt = offer.attempt
        return Lease(attempt.run_id, attempt.node_id, attempt.number, attempt.epoch, fingerprint(offer.token), self.id)


def succeeded(node_id: str, output: str = "{}") -> EndAttempt:
    """Returns a success."""
    return EndAttempt(node_id, Outcome.SUCCEEDED, digest=f"ok:{output}", output=output)


def failed(node_id: str, kind: FailureClass = FailureClass.TRANSIENT) -> EndAttempt:
    """Returns a failure."""
    return EndAttempt(node_id, Outcome.FAILED, digest="failed", failure=Failure(kind, "BROKEN", "it broke"))


Scenario = Callable[[Rig], Awaitable[None]]


@contextlib.asynccontextmanager
async def control_plane(folder: Path, url: str = "", *, audited: bool = True) -> AsyncGenerator[Rig]:
    """Opens a fresh store and commits until the scenario is over; what it leaves keeps every invariant if `audited`.

    The store is a file in the folder, or the empty database at the URL.
    """
    url = url or f"sqlite:///{folder / 'towline.db'}"
    await asyncio.to_thread(upgrade, url)
    async with serving(url, FakeClock()) as rig:
        owner = User(OWNER, "o@example.com", "O", f"$2b${'x' * 56}", Role.USER, 1, rig.clock())
        await rig.database.write(lambda tx: users.insert_user(tx, owner))
        yield rig
        breaches = (await audit_database(rig.database)).breaches if audited else ()
        assert breaches == (), "\n".join(map(str, breaches))


@contextlib.asynccontextmanager
async def serving(url: str, clock: FakeClock) -> AsyncGenerator[Rig]:
    """Opens a control plane, perhaps one more, on a database, with a doorbell of its own."""
    database = Database.open(url, clock=clock)
    doorbell = InProcessDoorbell()
    orchestrator = Orchestrator(database, doorbell, jitter=lambda: 0.5)
    committing = asyncio.create_task(orchestrator.run())
    try:
        yield Rig(database, doorbell, orchestrator, clock)
    finally:
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        await database.close()
