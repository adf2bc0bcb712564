"""A control plane without its server, and agents that do no work: what remains is the cost of the control plane."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.dags import Document
from bench.figures import Cost, Stopwatch
from bench.store import Store
from towline_controlplane.bus import InProcessDoorbell
from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.handouts import StepOffer
from towline_controlplane.ids import new_id
from towline_controlplane.model import AgentRecord, Lease, PluginRef, Role, Run, User, Workflow, WorkflowVersion
from towline_controlplane.orchestrator import Orchestrator, RunStart
from towline_controlplane.rooms import Claim
from towline_controlplane.store import agents, queues, users, workflows
from towline_controlplane.store.database import Database
from towline_controlplane.submissions import Report, Verdict
from towline_controlplane.tokens import fingerprint
from towline_dag.choices import SideEffects
from towline_migrations import upgrade

OWNER = User("owner", "o@example.com", "O", "", Role.USER, 1, 1)
_PLUGIN = PluginRef("DELAY", "1", "", "python:delay:main", SideEffects.NONE)
_SESSION = "session"
_OUTPUT = '{"seconds":0}'
_STARTS_AT_ONCE = 100


@dataclass(slots=True)
class Agent:
    """Holds up to `slots` steps, and reports all of them with every message."""

    orchestrator: Orchestrator
    id: str
    queue_ids: frozenset[str]
    slots: int
    held: Sequence[StepOffer] = ()

    async def exchange(self) -> int:
        """Reports what it holds and takes as much again; returns how many steps it reported."""
        reports = [self._success(offer) for offer in self.held]
        claim = Claim(self.id, _SESSION, self.queue_ids, self.slots, 5.0)
        verdicts, served = await self.orchestrator.exchange((), reports, claim)
        self.held = served.offers
        if any(verdict is not Verdict.ACCEPTED for verdict in verdicts):
            raise AssertionError(verdicts)
        return len(reports)

    def _success(self, offer: StepOffer) -> Report:
        attempt = offer.attempt
        lease = Lease(attempt.run_id, attempt.node_id, attempt.number, attempt.epoch, fingerprint(offer.token), self.id)
        end = EndAttempt(attempt.node_id, Outcome.SUCCEEDED, digest=attempt.execution_key, output=_OUTPUT)
        return Report(lease, end)


@dataclass(slots=True)
class Plant:
    """The control plane under measurement."""

    database: Database
    orchestrator: Orchestrator

    async def workflow(self, document: Document) -> WorkflowVersion:
        """Stores a workflow and returns its version."""
        ids = [str(node["id"]) for node in document["nodes"]]
        workflow_id, version_id = new_id(), new_id()
        version = WorkflowVersion(
            version_id, workflow_id, 1, json.dumps(document), dict.fromkeys(ids, _PLUGIN), create_time=1
        )
        workflow = Workflow(workflow_id, OWNER.id, workflow_id, "", 1, version_id, None, 1, 1)
        await self.database.write(lambda tx: workflows.insert_workflow(tx, workflow, version))
        await self.orchestrator.queues.ensure(self.orchestrator.blueprints.add(version).queues)
        return version

    async def start(self, version: WorkflowVersion, count: int = 1) -> list[Run]:
        """Starts runs, some at a time."""
        start = RunStart(version.workflow_id, version, OWNER.id, "{}", 0, {}, None, "")
        runs: list[Run] = []
        while len(runs) < count:
            some = min(count - len(runs), _STARTS_AT_ONCE)
            runs += await asyncio.gather(*[self.orchestrator.start_run(start) for _ in range(some)])
        return runs

    async def agents(self, slots: Sequence[int]) -> list[Agent]:
        """Returns an agent for each of these numbers of slots."""
        queue_ids = frozenset(await self.database.read(queues.all_queues))
        found: list[Agent] = []
        for count in slots:
            record = AgentRecord(
                id=new_id(),
                name=new_id(),
                credential_hash=new_id(),
                create_time=1,
                session_id=_SESSION,
                slots=count,
                lease_expire_time=2**62,
            )
            await self.database.write(lambda tx, row=record: agents.insert_agent(tx, row))
            found.append(Agent(self.orchestrator, record.id, queue_ids, count))
        return found

    async def work(self, workers: Sequence[Agent], most_seconds: float) -> Cost:
        """Lets agents work side by side until one of them gets less than it asks for, or the time is over."""
        await asyncio.gather(*[agent.exchange() for agent in workers])
        watch = Stopwatch()
        busy = True

        async def work(agent: Agent) -> int:
            nonlocal busy
            steps = 0
            while busy:
                steps += await agent.exchange()
                busy = busy and len(agent.held) == agent.slots and watch.cost(1).wall < most_seconds
            return steps

        return watch.cost(sum(await asyncio.gather(*map(work, workers))))

    async def drain(self, workers: Sequence[Agent]) -> None:
        """Lets agents work until nothing is left."""
        for agent in workers:
            await agent.exchange()
            while agent.held:
                await agent.exchange()


@asynccontextmanager
async def plant(store: Store) -> AsyncGenerator[Plant]:
    """Yields a control plane on an empty store."""
    await asyncio.to_thread(upgrade, store.url)
    database = Database.open(store.url)
    await database.write(lambda tx: users.insert_user(tx, OWNER))
    orchestrator = Orchestrator(database, InProcessDoorbell())
    committing = asyncio.create_task(orchestrator.run())
    try:
        yield Plant(database, orchestrator)
    finally:
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        await database.close()
