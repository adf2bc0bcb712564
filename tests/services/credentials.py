"""Credentials of every kind that count no more, or never counted: whatever is asked with one is refused."""

import secrets
import time
from collections.abc import Mapping

import jwt
from service_rig import PASSWORD, SECRET, Rig

from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.tokens import new_agent_credential, new_api_key


async def spoiled_credentials(rig: Rig) -> Mapping[str, str]:
    """Returns texts to send as a bearer's, by what is wrong with them; those that need an account had one of a user."""
    user, gone = await rig.user("spoiled"), await rig.user("gone")
    signed_in = await rig.nobody.call("AuthService/Login", email="spoiled@example.com", password=PASSWORD)
    key = (await user.call("AuthService/CreateApiKey", name="k", scopes=["*"])).key
    await gone.call("AuthService/Logout")
    agent = (await rig.agent("disabled")).caller

    def spoil(tx: Transaction) -> None:
        tx.connection.execute(tables.api_keys.update().values(expire_time=1))
        tx.connection.execute(tables.agents.update().values(disabled=True))

    await rig.database.write(spoil)
    now = int(time.time())
    claims = {"iat": now, "jti": "j", "iss": "towline", "typ": "access", "sub": user.id, "tv": 1, "sid": ""}
    good = {"aud": "towline-api", "exp": now + 600}
    return {
        "nothing": "nothing",
        "expired": jwt.encode(claims | good | {"exp": now - 1}, SECRET),
        "other audience": jwt.encode(claims | good | {"aud": "towline-agent"}, SECRET),
        "other key": jwt.encode(claims | good, SECRET[::-1]),
        "no signature": jwt.encode(claims | good, "", algorithm="none"),
        "logged out": gone.credential,
        "refresh token": signed_in.refresh_token,
        "expired API key": key,
        "unknown API key": new_api_key(),
        "disabled agent": agent.credential,
        "unknown agent": new_agent_credential(),
        "enrollment token": "twe_" + secrets.token_urlsafe(32),
    }
