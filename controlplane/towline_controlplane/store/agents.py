"""Agents, their sessions, and the tokens they enroll with."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, update

from towline_controlplane import protocol_versions
from towline_controlplane.errors import AlreadyExists
from towline_controlplane.model import AgentRecord
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.leases import held_attempts
from towline_controlplane.store.rows import AGENT, insert_if_absent, to_json
from towline_controlplane.store.statements import Statement, as_json, listed
from towline_dag.choices import SandboxLevel

_UNORDERED = "________-____-4%"
"""A UUID of version 4."""
_COLUMNS = AGENT.columns(tables.agents)
_HELD_OPEN = (tables.attempts.c.end_time.is_(None)) & (tables.attempts.c.agent_id == tables.agents.c.id)
_HELD = select(func.count()).select_from(held_attempts()).where(_HELD_OPEN)
_TAKEN = select(func.coalesce(func.sum(tables.attempts.c.weight), 0)).select_from(held_attempts()).where(_HELD_OPEN)
_WITH_HELD = select(*_COLUMNS, _HELD.scalar_subquery(), _TAKEN.scalar_subquery())
_BY_CREDENTIAL = Statement(
    f"SELECT {listed(AGENT.names, 'agents')} FROM agents WHERE agents.credential_hash = ?"  # noqa: S608 - our own names
)
_BY_NEXT_CREDENTIAL = Statement(
    f"SELECT {listed(AGENT.names, 'agents')} FROM agents WHERE agents.next_credential_hash = ?"  # noqa: S608
)
_LOCK = Statement(
    f"SELECT {listed(AGENT.names, 'r')} FROM agents r WHERE r.id IN {{ids}} ORDER BY r.id {{lock}}"  # noqa: S608
)
_COUNT_HELD = Statement(
    "SELECT a.agent_id, count(*), sum(a.weight), sum(CASE a.state WHEN 'OFFERED' THEN a.memory_limit_mb ELSE 0 END)"
    " FROM attempts a JOIN steps s ON s.run_id = a.run_id AND s.node_id = a.node_id"
    " AND s.attempt = a.number AND s.epoch = a.epoch AND s.state = 'LEASED'"
    " WHERE a.agent_id IN {ids} AND a.end_time IS NULL GROUP BY a.agent_id"
)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What an agent says of itself when it opens a session."""

    slots: int
    labels: Mapping[str, str]
    version: str = ""
    hostname: str = ""
    platform: str = ""
    sandbox_level: int = SandboxLevel.L0
    plugins: Sequence[str] = ()
    protocol_version: int = protocol_versions.CURRENT
    lacking: Sequence[str] = ()
    unschedulable: str | None = None
    memory_bytes: int = 0
    sandbox: str = "{}"
    """JSON text."""
    network_isolation: str = "none"


@dataclass(frozen=True, slots=True)
class ListedAgent:
    """An agent, and how many open attempts it holds."""

    agent: AgentRecord
    running: int = 0
    taken: int = 0
    """Slots that they take."""
    offered_mb: int = 0
    """Memory that those of them may take of whose start it has not told yet."""


@dataclass(frozen=True, slots=True)
class LeaseClock:
    """The sign of life of an agent that holds attempts: one whose `renewals` stand still is suspect (T3)."""

    agent_id: str
    session_id: str | None
    renewals: int
    lease_expire_time: int


def insert_agent(tx: Transaction, agent: AgentRecord) -> None:
    """Inserts an agent; raises AlreadyExists if its name is taken."""
    if not insert_if_absent(tx.connection, tables.agents, AGENT.row(agent)):
        raise AlreadyExists(f"an agent with the name {agent.name!r} exists")


def get_agent(tx: Transaction, agent_id: str) -> AgentRecord | None:
    """Returns an agent."""
    return AGENT.first(tx.connection, select(*_COLUMNS).where(tables.agents.c.id == agent_id))


def find_by_credential(tx: Transaction, credential_hash: str) -> AgentRecord | None:
    """Returns the agent that a credential belongs to, the next one of an agent too."""
    rows = tx.fetch(_BY_CREDENTIAL, credential_hash) or tx.fetch(_BY_NEXT_CREDENTIAL, credential_hash)
    return AGENT.load(rows[0]) if rows else None


def open_session(tx: Transaction, agent_id: str, session_id: str, info: SessionInfo, lease_expire_time: int) -> bool:
    """Makes a session the agent's only one, or renews it with new info.

    False if there is no such agent, or if its session has a lease that is not over, and a greater id or another host: a
    process that comes back may take its own place, and nobody else's. Agents of the first release named their sessions
    at random: their ids say nothing of which is the later one.
    """
    values = asdict(info) | {
        "labels": to_json(dict(info.labels)),
        "sandbox_level": int(info.sandbox_level),
        "plugins": to_json(list(info.plugins)),
        "lacking": to_json(list(info.lacking)),
        "session_id": session_id,
    }
    agents = tables.agents.c
    later = or_(
        agents.session_id <= session_id, agents.session_id.like(_UNORDERED), literal(session_id).like(_UNORDERED)
    )
    own_earlier = and_(later, agents.hostname.in_(("", info.hostname)))
    earlier = or_(agents.session_id.is_(None), own_earlier, agents.lease_expire_time <= tx.now)
    return _renew(tx, lease_expire_time, (agents.id == agent_id, earlier), values)


def renew_if_session(tx: Transaction, agent_id: str, session_id: str, lease_expire_time: int) -> bool:
    """Renews all leases of an agent, only if `session_id` is still its session; tells whether it was."""
    agents = tables.agents.c
    return _renew(tx, lease_expire_time, (agents.id == agent_id, agents.session_id == session_id), {})


def list_agents(tx: Transaction, after_name: str, limit: int) -> list[ListedAgent]:
    """Returns agents by name, from behind `after_name`."""
    name = tables.agents.c.name
    return _listed(tx, _WITH_HELD.where(name > after_name).order_by(name).limit(limit))


def find_agent(tx: Transaction, id_or_name: str) -> ListedAgent | None:
    """Returns the agent with this id, else the one with this name."""
    agents = tables.agents.c
    found = _listed(tx, _WITH_HELD.where(or_(agents.id == id_or_name, agents.name == id_or_name)))
    return min(found, key=lambda listed: listed.agent.id != id_or_name, default=None)


def lock_agents(tx: Transaction, agent_ids: Collection[str]) -> dict[str, ListedAgent]:
    """Returns those of the agents that exist by id, locked in the order of their ids until the transaction ends."""
    ids = as_json(agent_ids)
    locked = [AGENT.load(row) for row in tx.fetch(_LOCK, ids)]
    # In a statement of its own: one sees what was committed before it began, and the lock may have been waited for.
    held = {agent_id: counts for agent_id, *counts in tx.fetch(_COUNT_HELD, ids)}
    return {agent.id: ListedAgent(agent, *map(int, held.get(agent.id, ()))) for agent in locked}


def set_drained(tx: Transaction, agent_id: str, *, drained: bool) -> None:
    """Drains an agent or takes that back; claims under way for it are over before."""
    agents = tables.agents
    tx.connection.execute(update(agents).where(agents.c.id == agent_id).values(drained=drained))


def set_disabled(tx: Transaction, agent_id: str, *, disabled: bool) -> None:
    """Disables an agent or takes that back; claims under way for it are over before."""
    agents = tables.agents
    tx.connection.execute(update(agents).where(agents.c.id == agent_id).values(disabled=disabled))


def set_sandbox_cap(tx: Transaction, agent_id: str, level: int | None) -> None:
    """Caps the sandbox that an agent is believed to have, or takes that back."""
    agents = tables.agents
    tx.connection.execute(update(agents).where(agents.c.id == agent_id).values(sandbox_cap=level))


def lease_clocks(tx: Transaction) -> list[LeaseClock]:
    """Returns the signs of life of all agents that hold open attempts."""
    agents = tables.agents.c
    query = select(agents.id, agents.session_id, agents.renewals, agents.lease_expire_time)
    holds = select(tables.attempts.c.run_id).select_from(held_attempts()).where(_HELD_OPEN).exists()
    return [LeaseClock(*row) for row in tx.connection.execute(query.where(holds).order_by(agents.id))]


def _listed(tx: Transaction, query: Select[Any]) -> list[ListedAgent]:
    return [ListedAgent(AGENT.load(row[:-2]), *map(int, row[-2:])) for row in tx.connection.execute(query)]


def _renew(
    tx: Transaction, lease_expire_time: int, guard: Iterable[ColumnElement[bool]], values: Mapping[str, object]
) -> bool:
    agents = tables.agents.c
    statement = (
        update(tables.agents)
        .where(*guard)
        .values(renewals=agents.renewals + 1, lease_expire_time=lease_expire_time, last_seen_time=tx.now, **values)
    )
    return tx.connection.execute(statement).rowcount == 1
