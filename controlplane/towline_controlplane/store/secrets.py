"""Secrets and their grants. Values are encrypted before they come here."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import and_, delete, func, or_, select, update

from towline_controlplane.errors import AlreadyExists
from towline_controlplane.keyring import Sealed
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import SECRET, insert_if_absent
from towline_controlplane.vault import Secret

_COLUMNS = SECRET.columns(tables.secrets)
_SECRETS = tables.secrets.c
_GRANTS = tables.secret_grants.c


def insert_secret(tx: Transaction, secret: Secret) -> None:
    """Inserts a secret; raises AlreadyExists if its owner has one of the name."""
    if not insert_if_absent(tx.connection, tables.secrets, SECRET.row(secret)):
        raise AlreadyExists(f"a secret with the name {secret.name} exists")


def get_secret(tx: Transaction, secret_id: str) -> Secret | None:
    """Returns a secret by its id."""
    return SECRET.first(tx.connection, select(*_COLUMNS).where(_SECRETS.id == secret_id))


def find_by_name(tx: Transaction, owner_id: str, name: str) -> Secret | None:
    """Returns the owner's secret of this name."""
    return SECRET.first(tx.connection, select(*_COLUMNS).where(_SECRETS.owner_id == owner_id, _SECRETS.name == name))


def list_secrets(tx: Transaction, owner_id: str | None, after: tuple[str, str] | None, limit: int) -> list[Secret]:
    """Returns secrets of an owner, or of all, by name and id, from behind a name and an id."""
    query = select(*_COLUMNS).order_by(_SECRETS.name, _SECRETS.id).limit(limit)
    if owner_id is not None:
        query = query.where(_SECRETS.owner_id == owner_id)
    if after is not None:
        name, secret_id = after
        query = query.where(or_(_SECRETS.name > name, and_(_SECRETS.name == name, _SECRETS.id > secret_id)))
    return SECRET.all(tx.connection, query)


def count_secrets(tx: Transaction, owner_id: str) -> int:
    """Returns how many secrets an owner has."""
    return tx.connection.execute(select(func.count()).where(_SECRETS.owner_id == owner_id)).scalar_one()


def replace_value_if_version(tx: Transaction, secret: Secret, version: int) -> bool:
    """Stores a new value, only if the secret still has `version`; tells whether it did."""
    values = {
        "version": secret.version,
        "key_id": secret.key_id,
        "nonce": secret.nonce,
        "ciphertext": secret.ciphertext,
        "update_time": secret.update_time,
    }
    guarded = update(tables.secrets).where(_SECRETS.id == secret.id, _SECRETS.version == version)
    return tx.connection.execute(guarded.values(values)).rowcount == 1


def reseal_if_unchanged(tx: Transaction, secret: Secret, sealed: Sealed) -> bool:
    """Stores the same value under another key, only if nobody has changed it; tells whether it did."""
    guarded = update(tables.secrets).where(
        _SECRETS.id == secret.id, _SECRETS.version == secret.version, _SECRETS.key_id == secret.key_id
    )
    values = {"key_id": sealed.key_id, "nonce": sealed.nonce, "ciphertext": sealed.ciphertext}
    return tx.connection.execute(guarded.values(values)).rowcount == 1


def of_other_keys(tx: Transaction, key_id: str, after_id: str, limit: int) -> list[Secret]:
    """Returns secrets that are not encrypted with the key, by id, from behind an id."""
    query = select(*_COLUMNS).where(_SECRETS.key_id != key_id, _SECRETS.id > after_id)
    return SECRET.all(tx.connection, query.order_by(_SECRETS.id).limit(limit))


def delete_secret(tx: Transaction, secret_id: str) -> None:
    """Deletes a secret with its grants."""
    tx.connection.execute(delete(tables.secrets).where(_SECRETS.id == secret_id))


def insert_grant(tx: Transaction, secret_id: str, plugin: str) -> None:
    """Grants a secret to a plugin, once."""
    row = {"secret_id": secret_id, "plugin": plugin, "create_time": tx.now}
    insert_if_absent(tx.connection, tables.secret_grants, row)


def delete_grant(tx: Transaction, secret_id: str, plugin: str) -> None:
    """Takes a grant back."""
    tx.connection.execute(delete(tables.secret_grants).where(_GRANTS.secret_id == secret_id, _GRANTS.plugin == plugin))


def grants_of(tx: Transaction, secret_ids: Iterable[str]) -> dict[str, Sequence[str]]:
    """Returns the plugins that each of the secrets is granted to, by name."""
    query = select(_GRANTS.secret_id, _GRANTS.plugin).where(_GRANTS.secret_id.in_(list(secret_ids)))
    plugins: defaultdict[str, list[str]] = defaultdict(list)
    for secret_id, plugin in tx.connection.execute(query.order_by(_GRANTS.plugin)):
        plugins[secret_id].append(plugin)
    return dict(plugins)


def names_and_grants(tx: Transaction, owner_id: str, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Returns those of the names that the owner has a secret for, each with the plugins that it is granted to."""
    query = select(_SECRETS.name, _SECRETS.id).where(_SECRETS.owner_id == owner_id, _SECRETS.name.in_(list(names)))
    ids: dict[str, str] = {row.name: row.id for row in tx.connection.execute(query)}
    grants = grants_of(tx, ids.values())
    return {name: frozenset(grants.get(secret_id, ())) for name, secret_id in ids.items()}


def granted(tx: Transaction, owner_id: str, plugin: str, names: Iterable[str]) -> list[Secret]:
    """Returns those secrets of an owner, of these names, that are granted to the plugin."""
    joined = tables.secrets.join(tables.secret_grants, _SECRETS.id == _GRANTS.secret_id)
    mine = (_SECRETS.owner_id == owner_id, _SECRETS.name.in_(list(names)), _GRANTS.plugin == plugin)
    return SECRET.all(tx.connection, select(*_COLUMNS).select_from(joined).where(*mine))
