"""Agents, their sessions, and the tokens they enroll with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import func, select, update

from towline_controlplane.errors import AlreadyExists
from towline_controlplane.model import AgentRecord
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.leases import held_attempts
from towline_controlplane.store.rows import AGENT, insert_if_absent, to_json
from towline_controlplane.store.statements import Statement, listed

_COLUMNS = AGENT.columns(tables.agents)
_BY_CREDENTIAL = Statement(
    f"SELECT {listed(AGENT.names, 'agents')} FROM agents WHERE agents.credential_hash = ?"  # noqa: S608 - our own names
)
_HOLDS_LEASE = Statement("SELECT 1 FROM agents WHERE id = ? AND session_id = ? AND lease_expire_time > ?")


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What an agent says of itself when it opens a session."""

    slots: int
    labels: Mapping[str, str]
    version: str = ""
    hostname: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class ListedAgent:
    """An agent, and how many open attempts it holds."""

    agent: AgentRecord
    running: int


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
    """Returns the agent that a credential belongs to."""
    rows = tx.fetch(_BY_CREDENTIAL, credential_hash)
    return AGENT.load(rows[0]) if rows else None


def open_session(tx: Transaction, agent_id: str, session_id: str, info: SessionInfo, lease_expire_time: int) -> bool:
    """Makes a session the agent's only one, or renews it with new info; False if there is no such agent."""
    values = asdict(info) | {"labels": to_json(dict(info.labels)), "session_id": session_id}
    return _renew(tx, lease_expire_time, {"id": agent_id}, values)


def renew_if_session(tx: Transaction, agent_id: str, session_id: str, lease_expire_time: int) -> bool:
    """Renews all leases of an agent, only if `session_id` is still its session; tells whether it was."""
    return _renew(tx, lease_expire_time, {"id": agent_id, "session_id": session_id}, {})


def holds_lease(tx: Transaction, agent_id: str, session_id: str) -> bool:
    """Tells whether `session_id` is the agent's session and its lease is not over."""
    return bool(tx.fetch(_HOLDS_LEASE, agent_id, session_id, tx.now))


def list_agents(tx: Transaction, after_name: str, limit: int) -> list[ListedAgent]:
    """Returns agents by name, from behind `after_name`."""
    agents = tables.agents.c
    running = select(func.count()).select_from(held_attempts()).where(_HELD_OPEN).scalar_subquery()
    query = select(*_COLUMNS, running).where(agents.name > after_name).order_by(agents.name).limit(limit)
    return [ListedAgent(AGENT.load(row[:-1]), row[-1]) for row in tx.connection.execute(query)]


def lease_clocks(tx: Transaction) -> list[LeaseClock]:
    """Returns the signs of life of all agents that hold open attempts."""
    agents = tables.agents.c
    query = select(agents.id, agents.session_id, agents.renewals, agents.lease_expire_time)
    holds = select(tables.attempts.c.run_id).select_from(held_attempts()).where(_HELD_OPEN).exists()
    return [LeaseClock(*row) for row in tx.connection.execute(query.where(holds).order_by(agents.id))]


def insert_enrollment_token(tx: Transaction, token_hash: str, uses: int, expire_time: int) -> None:
    """Stores a token that is good for `uses` agents until `expire_time`; one that is stored stays as it is."""
    row = {"token_hash": token_hash, "uses_left": uses, "expire_time": expire_time, "create_time": tx.now}
    insert_if_absent(tx.connection, tables.enrollment_tokens, row)


def use_enrollment_token(tx: Transaction, token_hash: str) -> bool:
    """Uses a token once, only if uses are left and it has not expired; tells whether it did."""
    tokens = tables.enrollment_tokens.c
    statement = (
        update(tables.enrollment_tokens)
        .where(tokens.token_hash == token_hash, tokens.uses_left > 0, tokens.expire_time > tx.now)
        .values(uses_left=tokens.uses_left - 1)
    )
    return tx.connection.execute(statement).rowcount == 1


_HELD_OPEN = (tables.attempts.c.end_time.is_(None)) & (tables.attempts.c.agent_id == tables.agents.c.id)


def _renew(tx: Transaction, lease_expire_time: int, guard: Mapping[str, str], values: Mapping[str, object]) -> bool:
    agents = tables.agents.c
    statement = (
        update(tables.agents)
        .where(*(agents[name] == value for name, value in guard.items()))
        .values(renewals=agents.renewals + 1, lease_expire_time=lease_expire_time, last_seen_time=tx.now, **values)
    )
    return tx.connection.execute(statement).rowcount == 1
