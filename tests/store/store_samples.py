import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, ParamSpec, TypeVar

from towline_controlplane.model import (
    AgentRecord,
    Attempt,
    AttemptState,
    Event,
    EventType,
    PluginRef,
    Role,
    Run,
    RunState,
    Step,
    StepState,
    User,
    Workflow,
    WorkflowVersion,
)
from towline_controlplane.registry import Permissions, Plugin, PluginVersion
from towline_controlplane.store import agents, columns, runs
from towline_controlplane.store.database import Database, Transaction
from towline_dag.choices import Limits, Network, SideEffects

T = TypeVar("T")
P = ParamSpec("P")


@dataclass
class Clock:
    now: int = 1_000_000

    def __call__(self) -> int:
        return self.now


@dataclass
class Store:
    database: Database
    clock: Clock
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def write(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.runner.run(self.database.write(lambda tx: work(tx, *args, **kwargs)))

    def read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.runner.run(self.database.read(lambda tx: work(tx, *args, **kwargs)))

    def close(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()


def a_run(run_id: str = "run-1", **fields: Any) -> Run:
    run = Run(
        id=run_id,
        workflow_id="workflow-1",
        version_id="version-1",
        owner_id="owner-1",
        state=RunState.RUNNING,
        input='{"text": "é\\n"}',
        priority=0,
        labels={"team": "data"},
        cancel_requested=False,
        open_steps=1,
        failed_steps=0,
        event_count=0,
        create_time=1_000,
    )
    return ended(replace(run, **fields), columns.RUN_ENDED)


def a_step(run_id: str = "run-1", node_id: str = "a", **fields: Any) -> Step:
    step = Step(
        run_id=run_id,
        node_id=node_id,
        position=ord(node_id[0]) - ord("a"),
        state=StepState.READY,
        queue_id="queue-1",
        priority=0,
        open_edges=0,
    )
    return ended(replace(step, **fields), columns.STEP_ENDED)


def an_attempt(run_id: str = "run-1", node_id: str = "a", **fields: Any) -> Attempt:
    attempt = Attempt(
        run_id=run_id,
        node_id=node_id,
        number=1,
        execution_key="",
        state=AttemptState.OFFERED,
        epoch=1,
        agent_id="agent-1",
        session_id="session-1",
        token_hash="hash",
        create_time=2_000,
        offer_expire_time=3_000,
        memory_limit_mb=512,
    )
    attempt = replace(attempt, **fields)
    key = attempt.execution_key or f"{run_id}:{node_id}:{attempt.number}"
    return ended(replace(attempt, execution_key=key), columns.ATTEMPT_ENDED)


def ended(row: Any, states: tuple[Any, ...]) -> Any:
    return replace(row, end_time=9_000) if row.state in states and row.end_time is None else row


def an_event(run_id: str = "run-1", sequence: int = 1, **fields: Any) -> Event:
    return replace(Event(run_id, sequence, 1_000, EventType.RUN_CREATED), **fields)


def an_agent(agent_id: str = "agent-1", **fields: Any) -> AgentRecord:
    return replace(AgentRecord(agent_id, f"name of {agent_id}", f"credential of {agent_id}", 1_000), **fields)


def a_user(user_id: str = "user-1", **fields: Any) -> User:
    email = f"{user_id}@example.org"
    return replace(User(user_id, email, "Ada", "bcrypt", Role.USER, 3, 1_000), **fields)


def a_workflow(workflow_id: str = "workflow-1", **fields: Any) -> Workflow:
    version_id = f"{workflow_id}-version-1"
    workflow = Workflow(workflow_id, "owner-1", "name", "what it does", 1, version_id, None, 1_000, 1_000)
    return replace(workflow, **fields)


def a_version(workflow_id: str = "workflow-1", number: int = 1, **fields: Any) -> WorkflowVersion:
    builtin = PluginRef("SHELL", "", "", "builtin:shell", SideEffects.UNSAFE)
    pushed = PluginRef(
        *("fetch", "1.2.3", "ab" * 32, "python:fetch:run", SideEffects.NONE, 1_000, 64),
        network=Network.NONE,
        secrets=("API_KEY",),
        min_sandbox=2,
        limits=Limits(processes=5, log_kb=7),
    )
    version_id = f"{workflow_id}-version-{number}"
    version = WorkflowVersion(version_id, workflow_id, number, '{"nodes": []}', {"a": builtin, "b": pushed}, 1_000)
    return replace(version, **fields)


def a_plugin(plugin_id: str = "plugin-1", **fields: Any) -> Plugin:
    return replace(Plugin(plugin_id, f"name-of-{plugin_id}", "what it does", "owner-1", 1_000), **fields)


def a_plugin_version(version: str = "1.0.0", **fields: Any) -> PluginVersion:
    row = PluginVersion(
        id=f"plugin-1-{version}",
        plugin_id="plugin-1",
        version=version,
        digest=f"digest of {version}",
        size_bytes=2**40,
        entry_point="python:main:run",
        side_effects=SideEffects.IDEMPOTENT,
        timeout_ms=30_000,
        memory_limit_mb=512,
        config_schema='{"type": "object"}',
        output_schema="{}",
        enabled=True,
        create_time=1_000,
        permissions=Permissions(Network.NONE, ("API_KEY", "OTHER")),
        min_sandbox=3,
        limits=Limits(1, 2, 3, 4, 5, 6, 7),
    )
    return replace(row, **fields)


def add_run(tx: Transaction, run_id: str = "run-1", steps: tuple[Step, ...] | None = None, **fields: Any) -> None:
    runs.insert_runs(tx, [a_run(run_id, **fields)], (a_step(run_id),) if steps is None else steps, ())


def add_lease(tx: Transaction, run_id: str = "run-1", node_id: str = "a", **fields: Any) -> Attempt:
    """Leases a step that is there to a new attempt."""
    attempt = an_attempt(run_id, node_id, **fields)
    [step] = runs.load_steps(tx, [(run_id, node_id)])
    leased = replace(
        step, state=StepState.LEASED, attempt=attempt.number, epoch=attempt.epoch, agent_id=attempt.agent_id
    )
    runs.save_changes(tx, steps=[leased], attempts=[attempt])
    return attempt


def add_agent(tx: Transaction, agent_id: str = "agent-1", **fields: Any) -> AgentRecord:
    agent = an_agent(agent_id, **fields)
    agents.insert_agent(tx, agent)
    return agent
