"""API keys; only their hashes are kept."""

from sqlalchemy import delete, func, select, update

from towline_controlplane.identity import ApiKey
from towline_controlplane.model import User
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import API_KEY, USER
from towline_controlplane.store.statements import Statement, listed

_COLUMNS = API_KEY.columns(tables.api_keys)
_KEYS = tables.api_keys.c
_BY_HASH = Statement(
    f"SELECT {listed(API_KEY.names, 'api_keys')}, {listed(USER.names, 'users')}"  # noqa: S608 - our own names
    " FROM api_keys JOIN users ON users.id = api_keys.user_id WHERE api_keys.key_hash = ?"
)


def insert(tx: Transaction, key: ApiKey) -> None:
    """Inserts a key."""
    tx.connection.execute(tables.api_keys.insert().values(API_KEY.row(key)))


def find_by_hash(tx: Transaction, key_hash: str) -> tuple[ApiKey, User] | None:
    """Returns the key with this hash, and its user; only if it has not expired."""
    rows = tx.fetch(_BY_HASH, key_hash)
    if not rows:
        return None
    width = len(API_KEY.names)
    key = API_KEY.load(rows[0][:width])
    return None if key.expire_time is not None and key.expire_time <= tx.now else (key, USER.load(rows[0][width:]))


def count_of_user(tx: Transaction, user_id: str) -> int:
    """Returns how many keys a user has."""
    return tx.connection.execute(select(func.count()).where(_KEYS.user_id == user_id)).scalar_one()


def list_of_user(tx: Transaction, user_id: str, before_id: str, limit: int) -> list[ApiKey]:
    """Returns keys of a user, the newest first, from behind an id."""
    query = select(*_COLUMNS).where(_KEYS.user_id == user_id).order_by(_KEYS.id.desc()).limit(limit)
    return API_KEY.all(tx.connection, query.where(_KEYS.id < before_id) if before_id else query)


def note_use(tx: Transaction, key_id: str) -> None:
    """Remembers that a key is used now."""
    tx.connection.execute(update(tables.api_keys).where(_KEYS.id == key_id).values(use_time=tx.now))


def delete_key(tx: Transaction, key_id: str, user_id: str) -> bool:
    """Deletes a key of a user; tells whether there was one."""
    statement = delete(tables.api_keys).where(_KEYS.id == key_id, _KEYS.user_id == user_id)
    return tx.connection.execute(statement).rowcount == 1


def delete_of_user(tx: Transaction, user_id: str) -> None:
    """Deletes all keys of a user."""
    tx.connection.execute(delete(tables.api_keys).where(_KEYS.user_id == user_id))


def delete_expired(tx: Transaction, before: int) -> int:
    """Deletes keys that expired before a time (µs); returns how many."""
    return tx.connection.execute(delete(tables.api_keys).where(_KEYS.expire_time < before)).rowcount
