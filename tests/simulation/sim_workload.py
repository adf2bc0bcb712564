"""What users ask for: small workflows of all kinds of edges, joins and limits, and what they do to their runs.

To simulate a new command, add it to `COMMANDS`; to simulate a new field of a node, draw it in `_node`.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from towline.v1 import run_service_pb2 as pb
from towline_controlplane.model import AgentRecord, PluginRef, Role, User, Workflow, WorkflowVersion
from towline_controlplane.store import agents, users, workflows
from towline_controlplane.store.database import Transaction
from towline_controlplane.tokens import AGENT_PREFIX, fingerprint
from towline_dag.choices import SideEffects

USER = User("user", "user@example.com", "User", f"$2b$04${'.' * 53}", Role.USER, 1, 0)
ZONE = {"zone": "a"}
HEAVY = 2
"""Slots of some steps; the agents of the zone have as many."""


@dataclass(frozen=True, slots=True)
class Command:
    """Something that a user does to a run that exists."""

    method: str
    request: type[Message]
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


COMMANDS: Mapping[str, Command] = {
    "pause": Command("RunService/PauseRun", pb.PauseRunRequest),
    "resume": Command("RunService/ResumeRun", pb.ResumeRunRequest),
    "freeze": Command("RunService/PauseRun", pb.PauseRunRequest, {"mode": pb.PauseRunRequest.FREEZE}),
    "cancel": Command("RunService/CancelRun", pb.CancelRunRequest),
    "retry": Command("RunService/RetryRun", pb.RetryRunRequest),
}
_WEIGHTS = {"pause": 2, "freeze": 3, "resume": 4, "cancel": 2, "retry": 3}


@dataclass(frozen=True, slots=True)
class Visit:
    """One run of one workflow: when it is started, and what is done to it after how many seconds."""

    workflow_id: str
    begins: float
    commands: tuple[tuple[float, str], ...]


def draw_visits(chance: random.Random, workflow_ids: list[str], storm_seconds: float) -> list[Visit]:
    """Draws who starts what when."""
    visits: list[Visit] = []
    spread = chance.choice((0.5, storm_seconds / 2))
    for _ in range(chance.choice((1, 2, 4, 8))):
        commands = [
            (chance.uniform(0, 10), chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0])
            for _ in range(chance.choice((0, 0, 0, 1, 2, 4)))
        ]
        visits.append(Visit(chance.choice(workflow_ids), chance.uniform(0, spread), tuple(commands)))
    return visits


def draw_dag(chance: random.Random) -> dict[str, Any]:
    """Draws a workflow of up to seven nodes."""
    names = [f"n{number}" for number in range(chance.choice((1, 2, 3, 4, 5, 7)))]
    edges: list[dict[str, Any]] = [
        {"from": source, "to": target, "condition": _condition(chance, source)}
        for index, target in enumerate(names)
        for source in names[:index]
        if chance.random() < 2 / (index + 1)
    ]
    sources = {target: [edge["from"] for edge in edges if edge["to"] == target] for target in names}
    return {"nodes": [_node(chance, name, sources[name]) for name in names], "edges": edges}


def draw_deadlines(chance: random.Random, dags: Mapping[str, dict[str, Any]]) -> None:
    """Draws which workflows have to be done within some time."""
    for document in dags.values():
        if chance.random() < 0.2:
            document["timeoutMs"] = chance.choice((3_000, 10_000, 20_000))


def _condition(chance: random.Random, source: str) -> dict[str, str]:
    expressions = (f"nodes.{source}.state == 'SUCCEEDED'", f"has(nodes.{source}.output.n)", "true", "false")
    kind = chance.choices(("ON_SUCCESS", "ALWAYS", "ON_FAILURE", "EXPRESSION"), (6, 3, 1, 2))[0]
    return {"type": kind} | ({"expression": chance.choice(expressions)} if kind == "EXPRESSION" else {})


def _node(chance: random.Random, name: str, sources: list[str]) -> dict[str, Any]:
    node: dict[str, Any] = {
        "id": name,
        "type": "PLAY",
        "timeoutMs": chance.choice((1_000, 4_000, 10_000)),
        "sideEffects": chance.choice(("NONE", "IDEMPOTENT", "IDEMPOTENT", "UNSAFE")),
        "join": chance.choice(("ALL", "ALL", "ANY", "ALL_DONE")),
        "retryConfig": {
            "maxAttempts": chance.choice((1, 2, 4)),
            "backoffMs": chance.choice((0, 500, 4_000)),
            "maxLost": chance.choice((0, 1, 5)),
            "strategy": chance.choice(("FIXED", "EXPONENTIAL")),
            "retryOn": chance.choice(([], [], ["TIMEOUT"], ["TRANSIENT", "PERMANENT"])),
        },
        "queueTimeoutMs": chance.choice((0, 0, 0, 3_000)),
        "config": {},
    }
    if sources and chance.random() < 0.3:
        node["config"] = {"state": f"${{{{ nodes.{sources[0]}.state }}}}"}
    if chance.random() < 0.15:
        node["labels"] = ZONE
    if chance.random() < 0.25:
        node["weight"] = HEAVY
    return node


def credential_of(agent: str) -> str:
    """Returns the credential that an agent is enrolled with."""
    return f"{AGENT_PREFIX}{agent}"


def install(tx: Transaction, dags: Mapping[str, dict[str, Any]], agent_names: list[str]) -> None:
    """Puts a user, enrolled agents and workflows into an empty database."""
    users.insert_user(tx, USER)
    for name in agent_names:
        agents.insert_agent(tx, AgentRecord(name, name, fingerprint(credential_of(name)), create_time=tx.now))
    for workflow_id, document in dags.items():
        ids = [node["id"] for node in document["nodes"]]
        plugin = PluginRef("PLAY", "", "", "python:play:main", SideEffects.IDEMPOTENT)
        version = WorkflowVersion(
            f"{workflow_id}-v1", workflow_id, 1, json.dumps(document), dict.fromkeys(ids, plugin), tx.now
        )
        workflow = Workflow(workflow_id, USER.id, workflow_id, "", 1, version.id, None, tx.now, tx.now)
        workflows.insert_workflow(tx, workflow, version)
