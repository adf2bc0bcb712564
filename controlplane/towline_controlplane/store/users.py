"""The people who sign in."""

from sqlalchemy import select

from towline_controlplane.errors import AlreadyExists
from towline_controlplane.model import User
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import USER, insert_if_absent
from towline_controlplane.store.statements import Statement, listed

_COLUMNS = USER.columns(tables.users)
_BY_ID = Statement(f"SELECT {listed(USER.names, 'users')} FROM users WHERE users.id = ?")  # noqa: S608 - our own names


def insert_user(tx: Transaction, user: User) -> None:
    """Inserts a user; raises AlreadyExists if the email, which the caller has normalised, is taken."""
    if not insert_if_absent(tx.connection, tables.users, USER.row(user)):
        raise AlreadyExists("a user with this email exists")


def get_user(tx: Transaction, user_id: str) -> User | None:
    """Returns a user."""
    rows = tx.fetch(_BY_ID, user_id)
    return USER.load(rows[0]) if rows else None


def find_by_email(tx: Transaction, email: str) -> User | None:
    """Returns the user with exactly this email."""
    return USER.first(tx.connection, select(*_COLUMNS).where(tables.users.c.email == email))
