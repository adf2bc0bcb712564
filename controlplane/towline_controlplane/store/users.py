"""The people who sign in. Who has no longer the same rights has another token version, so that its tokens end."""

from sqlalchemy import select, update

from towline_controlplane.errors import AlreadyExists
from towline_controlplane.model import Role, User
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import USER, insert_if_absent
from towline_controlplane.store.statements import Statement, listed

_COLUMNS = USER.columns(tables.users)
_USERS = tables.users.c
_BY_TOKEN = Statement(
    f"SELECT {listed(USER.names, 'users')} FROM users"  # noqa: S608 - our own names
    " LEFT JOIN revoked_tokens ON revoked_tokens.token_id IN (?, ?)"
    " WHERE users.id = ? AND users.token_version = ? AND revoked_tokens.token_id IS NULL"
)


def insert_user(tx: Transaction, user: User) -> None:
    """Inserts a user; raises AlreadyExists if the email, which the caller has normalised, is taken."""
    if not insert_if_absent(tx.connection, tables.users, USER.row(user)):
        raise AlreadyExists("a user with this email exists")


def get_user(tx: Transaction, user_id: str) -> User | None:
    """Returns a user."""
    return USER.first(tx.connection, select(*_COLUMNS).where(_USERS.id == user_id))


def find_by_email(tx: Transaction, email: str) -> User | None:
    """Returns the user with exactly this email."""
    return USER.first(tx.connection, select(*_COLUMNS).where(_USERS.email == email))


def find_by_token(tx: Transaction, user_id: str, token_version: int, token_id: str, sign_in_id: str) -> User | None:
    """Returns the user of a token, only if neither the version, the token nor its sign-in has been revoked."""
    rows = tx.fetch(_BY_TOKEN, token_id, sign_in_id, user_id, token_version)
    return USER.load(rows[0]) if rows else None


def list_users(tx: Transaction, after_email: str, limit: int) -> list[User]:
    """Returns users by email, from behind an email."""
    return USER.all(
        tx.connection, select(*_COLUMNS).where(_USERS.email > after_email).order_by(_USERS.email).limit(limit)
    )


def is_last_admin(tx: Transaction, user_id: str) -> bool:
    """Tells whether the user is the only admin who is not disabled; until the commit nobody else changes that."""
    query = select(_USERS.id).where(_USERS.role == Role.ADMIN.value, ~_USERS.disabled)
    admins = list(tx.connection.scalars(query.order_by(_USERS.id).with_for_update()))
    return admins == [user_id]


def set_role(tx: Transaction, user_id: str, role: Role) -> None:
    """Gives a user a role."""
    tx.connection.execute(update(tables.users).where(_USERS.id == user_id).values(role=role.value))


def set_disabled(tx: Transaction, user_id: str, *, disabled: bool) -> None:
    """Disables or enables a user."""
    tx.connection.execute(update(tables.users).where(_USERS.id == user_id).values(disabled=disabled))


def set_password(tx: Transaction, user_id: str, password_hash: str) -> None:
    """Gives a user another password."""
    tx.connection.execute(update(tables.users).where(_USERS.id == user_id).values(password_hash=password_hash))


def raise_token_version(tx: Transaction, user_id: str) -> None:
    """Makes all tokens of a user count no more."""
    statement = update(tables.users).where(_USERS.id == user_id).values(token_version=_USERS.token_version + 1)
    tx.connection.execute(statement)
