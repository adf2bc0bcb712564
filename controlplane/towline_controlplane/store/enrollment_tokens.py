"""The tokens that machines enroll with; only their hashes are kept."""

from dataclasses import dataclass

from sqlalchemy import func, select, update

from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import insert_if_absent

ID_LENGTH = 16
"""Digits of its hash that name a token."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token as far as it is known."""

    id: str
    uses_left: int
    expire_time: int
    create_time: int


def insert(tx: Transaction, token_hash: str, uses: int, expire_time: int) -> None:
    """Stores a token that is good for `uses` agents until `expire_time`; one that is stored stays as it is."""
    row = {"token_hash": token_hash, "uses_left": uses, "expire_time": expire_time, "create_time": tx.now}
    insert_if_absent(tx.connection, tables.enrollment_tokens, row)


def use(tx: Transaction, token_hash: str) -> bool:
    """Uses a token once, only if uses are left and it has not expired; tells whether it did."""
    tokens = tables.enrollment_tokens.c
    statement = (
        update(tables.enrollment_tokens)
        .where(tokens.token_hash == token_hash, tokens.uses_left > 0, tokens.expire_time > tx.now)
        .values(uses_left=tokens.uses_left - 1)
    )
    return tx.connection.execute(statement).rowcount == 1


def list_usable(tx: Transaction, limit: int) -> list[StoredToken]:
    """Returns the tokens that may still be used, those that expire first first."""
    tokens = tables.enrollment_tokens.c
    query = (
        select(tokens.token_hash, tokens.uses_left, tokens.expire_time, tokens.create_time)
        .where(tokens.uses_left > 0, tokens.expire_time > tx.now)
        .order_by(tokens.expire_time, tokens.token_hash)
        .limit(limit)
    )
    return [StoredToken(token_hash[:ID_LENGTH], *row) for token_hash, *row in tx.connection.execute(query)]


def revoke(tx: Transaction, token_id: str) -> bool:
    """Makes a token useless; tells whether there was one to use."""
    tokens = tables.enrollment_tokens
    named = func.substr(tokens.c.token_hash, 1, ID_LENGTH) == token_id
    usable = named, tokens.c.uses_left > 0, tokens.c.expire_time > tx.now
    return tx.connection.execute(update(tokens).where(*usable).values(uses_left=0)).rowcount > 0
