"""Registering, signing in, and what makes a token worth nothing."""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import pytest
from service_rig import COST, INVALID_ARGUMENT, PASSWORD, SECRET, UNAUTHENTICATED, Caller, Rig, refusal, serve

from towline_controlplane.errors import Unauthenticated, Unavailable
from towline_controlplane.model import Role, User
from towline_controlplane.passwords import MAX_WAITING, Passwords
from towline_controlplane.store import tables
from towline_controlplane.tokens import AccessTokens

USER = User("u1", "u@example.com", "U", "", Role.USER, token_version=3, create_time=0)


def test_a_registered_user_signs_in_and_is_known(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        registered = await rig.nobody.call(
            "AuthService/Register", email=" Ada@Example.com ", password=PASSWORD, name="Ada"
        )
        assert (registered.user.email, registered.user.role) == ("ada@example.com", 1)
        signed_in = await rig.nobody.call("AuthService/Login", email="ADA@example.com", password=PASSWORD)
        assert signed_in.expires_in == 12 * 3600
        assert abs(signed_in.expire_time.seconds - time.time() - signed_in.expires_in) < 60
        me = await Caller(rig.channel, signed_in.access_token).call("AuthService/GetMe")
        assert me.user == signed_in.user == registered.user

    serve(tmp_path, scenario)


def test_an_email_is_registered_once(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.nobody.call("AuthService/Register", email="a@example.com", password=PASSWORD, name="A")
        refused = await refusal(
            rig.nobody.call("AuthService/Register", email="A@EXAMPLE.COM", password=PASSWORD, name="B")
        )
        assert refused.reason == "ALREADY_EXISTS"

    serve(tmp_path, scenario)


def test_a_wrong_password_answers_like_an_unknown_email(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.nobody.call("AuthService/Register", email="a@example.com", password=PASSWORD, name="A")
        answers = {
            (await refusal(rig.nobody.call("AuthService/Login", email=email, password=password))).answer
            for email, password in (
                ("a@example.com", "wrong password"),
                ("a@example.com", ""),
                ("a@example.com", PASSWORD + "x" * 72),
                ("nobody@example.com", PASSWORD),
                ("no address", PASSWORD),
                ("x" * 10_000, PASSWORD),
            )
        }
        assert len(answers) == 1
        assert answers.pop()[2] == "BAD_CREDENTIALS"

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"password": "short"}, "password"),
        ({"password": "x" * 73}, "password"),
        ({"password": "ä" * 37}, "password"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b@c"}, "email"),
        ({"email": "a b@example.com"}, "email"),
        ({"email": "x" * 251 + "@b.c"}, "email"),
        ({"email": "a\0@example.com"}, "email"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 201}, "name"),
    ],
)
def test_registering_names_the_wrong_field(tmp_path: Path, fields: dict[str, str], wrong: str) -> None:
    async def scenario(rig: Rig) -> None:
        good = {"email": "a@example.com", "password": PASSWORD, "name": "A"}
        refused = await refusal(rig.nobody.call("AuthService/Register", **(good | fields)))
        assert refused.code == INVALID_ARGUMENT
        assert list(refused.violations) == [wrong]

    serve(tmp_path, scenario)


def test_a_password_of_72_bytes_is_not_cut_off(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        password = "ä" * 36
        await rig.nobody.call("AuthService/Register", email="a@example.com", password=password, name="A")
        await rig.nobody.call("AuthService/Login", email="a@example.com", password=password)
        assert await refusal(rig.nobody.call("AuthService/Login", email="a@example.com", password=password[:-1]))

    serve(tmp_path, scenario)


def test_the_first_admin_is_made_once_and_left_as_it_is(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.accounts.ensure_admin("Root@example.com", PASSWORD)
        again = await rig.accounts.ensure_admin("root@example.com", "another password")
        assert first == again
        assert first.role is Role.ADMIN
        await rig.nobody.call("AuthService/Login", email="root@example.com", password=PASSWORD)

    serve(tmp_path, scenario)


def test_a_check_without_a_hash_does_the_work_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    real = bcrypt.checkpw

    def spy(password: bytes, hashed: bytes) -> bool:
        checked.append(hashed[:7])
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", spy)

    async def scenario() -> None:
        passwords = Passwords(COST)
        assert not await passwords.matches("x" * 100, None)
        assert not await passwords.matches("x" * 100, await passwords.hash("x" * 72))
        passwords.close()

    asyncio.run(scenario())
    assert checked == [b"$2b$04$"] * 2


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (SECRET[:31], "32 bytes"),
        ("", "32 bytes"),
        ("x" * 64, "easy to guess"),
        ("0123456789abcdef" * 3, "easy to guess"),
        ("ChangeMe-ChangeMe-1234567890-abcdef", "easy to guess"),
        ("secret-secret-secret-secret-secret-secret", "easy to guess"),
    ],
)
def test_a_secret_that_can_be_guessed_is_refused(secret: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        AccessTokens(secret)
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize("random", [lambda: secrets.token_hex(32), lambda: secrets.token_urlsafe(32)])
def test_a_random_secret_is_taken(random: Callable[[], str]) -> None:
    for _ in range(100):
        AccessTokens(random())


def _claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "exp": now + 60,
        "iat": now,
        "sub": "u1",
        "jti": "j",
        "iss": "towline",
        "aud": "towline-api",
        "typ": "access",
        "tv": 3,
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def _signed(claims: Mapping[str, Any], key: str = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(dict(claims), key, algorithm=algorithm, headers=header or None)


def _unsigned() -> str:
    return jwt.encode(_claims(), "", algorithm="none")


def _with_other_payload() -> str:
    head, _, signature = _signed(_claims()).split(".")
    return ".".join((head, _signed(_claims(sub="u2")).split(".")[1], signature))


ATTACKS: Mapping[str, Callable[[], str]] = {
    "algorithm none": _unsigned,
    "signature cut off": lambda: _signed(_claims()).rsplit(".", 1)[0] + ".",
    "payload exchanged": _with_other_payload,
    "another key": lambda: _signed(_claims(), SECRET[::-1]),
    "another algorithm": lambda: _signed(_claims(), SECRET * 2, "HS512"),
    "key id in the header": lambda: _signed(_claims(), kid="../../dev/null"),
    "key url in the header": lambda: _signed(_claims(), jku="http://attacker.example"),
    "critical extension": lambda: _signed(_claims(), crit=["exp"]),
    "other header type": lambda: _signed(_claims(), typ="at+jwt"),
    "expired": lambda: _signed(_claims(exp=int(time.time()) - 1)),
    "expiry as text": lambda: _signed(_claims(exp=str(int(time.time()) + 60))),
    "expiry infinite": lambda: _signed(_claims(exp=1e300)),
    "wrong audience": lambda: _signed(_claims(aud="other")),
    "wrong issuer": lambda: _signed(_claims(iss="other")),
    "wrong type": lambda: _signed(_claims(typ="refresh")),
    "version as bool": lambda: _signed(_claims(tv=True)),
    "sign-in as number": lambda: _signed(_claims(sid=1)),
    "version as text": lambda: _signed(_claims(tv="3")),
    "not yet valid": lambda: _signed(_claims(nbf=int(time.time()) + 60)),
    "no jwt": lambda: "nonsense",
    "empty": lambda: "",
    "huge": lambda: "x" * 5_000,
    **{
        f"without {name}": lambda name=name: _signed(_claims(**{name: None}))
        for name in ("exp", "iat", "sub", "jti", "iss", "aud", "typ", "tv")
    },
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_token_that_is_not_ours_is_refused(attack: str) -> None:
    tokens = AccessTokens(SECRET)
    assert tokens.verify(_signed(_claims())).user_id == "u1"
    with pytest.raises(Unauthenticated):
        tokens.verify(ATTACKS[attack]())


def test_a_token_ends_with_its_lifetime() -> None:
    now = [1_000_000.0]
    tokens = AccessTokens(SECRET, lifetime_seconds=60, clock=lambda: now[0])
    token = tokens.issue(USER)
    assert token.expire_time == 1_000_060_000_000
    now[0] += 59
    assert tokens.verify(token.text).token_version == 3
    now[0] += 1
    with pytest.raises(Unauthenticated):
        tokens.verify(token.text)


def test_a_token_of_an_earlier_version_is_revoked(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        await user.call("AuthService/GetMe")
        bump = tables.users.update().values(token_version=2)
        await rig.database.write(lambda tx: tx.connection.execute(bump))
        assert (await refusal(user.call("AuthService/GetMe"))).code == UNAUTHENTICATED

    serve(tmp_path, scenario)


def test_a_token_of_a_user_who_is_gone_is_refused(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        gone = Caller(rig.channel, rig.tokens.issue(replace(USER, id="gone")).text)
        assert (await refusal(gone.call("AuthService/GetMe"))).code == UNAUTHENTICATED

    serve(tmp_path, scenario)


def test_the_role_is_the_one_in_the_database(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        await admin.call("AgentAdminService/ListAgents")
        demote = tables.users.update().values(role="USER")
        await rig.database.write(lambda tx: tx.connection.execute(demote))
        assert (await refusal(admin.call("AgentAdminService/ListAgents"))).reason == "PERMISSION_DENIED"

    serve(tmp_path, scenario)


def test_a_rush_of_passwords_is_turned_away_not_queued() -> None:
    async def scenario() -> None:
        passwords = Passwords(COST, threads=1)
        checks = [passwords.matches(PASSWORD, None) for _ in range(MAX_WAITING + 5)]
        answers = await asyncio.gather(*checks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [bool] * MAX_WAITING + [Unavailable] * 5
        assert await passwords.matches(PASSWORD, None) is False
        passwords.close()

    asyncio.run(scenario())
