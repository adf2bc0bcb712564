"""How an agent's credential gives way to a new one: both count until the new one has been used."""

from sqlalchemy import update

from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction


def make_due(tx: Transaction, agent_id: str) -> None:
    """Makes an agent's credential due to be replaced."""
    agents = tables.agents
    tx.connection.execute(update(agents).where(agents.c.id == agent_id).values(rotation_time=tx.now))


def issue_if_due(tx: Transaction, agent_id: str, credential_hash: str, again_after_us: int) -> bool:
    """Gives an agent a next credential, only if one is due; tells whether it was. Due again if it is not used."""
    agents = tables.agents.c
    statement = (
        update(tables.agents)
        .where(agents.id == agent_id, agents.rotation_time > 0, agents.rotation_time <= tx.now)
        .values(next_credential_hash=credential_hash, rotation_time=tx.now + again_after_us)
    )
    return tx.connection.execute(statement).rowcount == 1


def use_next(tx: Transaction, credential_hash: str, keep_us: int) -> None:
    """Lets a next credential take the place of the other, because it was used; due again after `keep_us`, 0: never."""
    agents = tables.agents.c
    tx.connection.execute(
        update(tables.agents)
        .where(agents.next_credential_hash == credential_hash)
        .values(
            credential_hash=credential_hash,
            next_credential_hash=None,
            rotation_time=tx.now + keep_us if keep_us else 0,
        )
    )
