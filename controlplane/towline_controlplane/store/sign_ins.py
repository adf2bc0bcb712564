"""Sign-ins with the one refresh token of each that counts, and the tokens that count no more. Only hashes are kept."""

from sqlalchemy import delete, select, update

from towline_controlplane.identity import SignIn
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import SIGN_IN, insert_if_absent

_COLUMNS = SIGN_IN.columns(tables.sign_ins)
_SIGN_INS = tables.sign_ins.c


def insert(tx: Transaction, sign_in: SignIn, most: int) -> None:
    """Inserts a sign-in; of its user's only the `most` that were used last stay."""
    tx.connection.execute(tables.sign_ins.insert().values(SIGN_IN.row(sign_in)))
    of_user = select(_SIGN_INS.id).where(_SIGN_INS.user_id == sign_in.user_id)
    surplus = list(tx.connection.scalars(of_user.order_by(_SIGN_INS.use_time.desc(), _SIGN_INS.id.desc()).offset(most)))
    if surplus:
        tx.connection.execute(delete(tables.sign_ins).where(_SIGN_INS.id.in_(surplus)))


def lock_by_family(tx: Transaction, family_hash: str) -> SignIn | None:
    """Returns a sign-in that has not expired, which nobody else changes until the commit."""
    found = (_SIGN_INS.family_hash == family_hash, _SIGN_INS.expire_time > tx.now)
    return SIGN_IN.first(tx.connection, select(*_COLUMNS).where(*found).with_for_update())


def replace_refresh_hash(tx: Transaction, sign_in_id: str, refresh_hash: str) -> None:
    """Lets another refresh token take the place of the one that counted."""
    statement = update(tables.sign_ins).where(_SIGN_INS.id == sign_in_id)
    tx.connection.execute(statement.values(refresh_hash=refresh_hash, use_time=tx.now))


def delete_sign_in(tx: Transaction, sign_in_id: str) -> None:
    """Deletes a sign-in."""
    tx.connection.execute(delete(tables.sign_ins).where(_SIGN_INS.id == sign_in_id))


def delete_of_user(tx: Transaction, user_id: str) -> None:
    """Deletes all sign-ins of a user."""
    tx.connection.execute(delete(tables.sign_ins).where(_SIGN_INS.user_id == user_id))


def revoke_token(tx: Transaction, token_id: str, expire_time: int) -> None:
    """Makes a token, or all tokens of a sign-in, count no more; remembered until they have expired anyway."""
    insert_if_absent(tx.connection, tables.revoked_tokens, {"token_id": token_id, "expire_time": expire_time})


def delete_expired(tx: Transaction) -> int:
    """Deletes sign-ins and remembered tokens that have expired; returns how many."""
    tokens = tables.revoked_tokens
    gone = tx.connection.execute(delete(tables.sign_ins).where(_SIGN_INS.expire_time <= tx.now)).rowcount
    return gone + tx.connection.execute(delete(tokens).where(tokens.c.expire_time <= tx.now)).rowcount
