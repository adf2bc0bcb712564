"""From a password to tokens, on to fresh ones, and out: what ends, ends at once."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from service_rig import PASSWORD, UNAUTHENTICATED, Caller, Refused, Rig, refusal, serve

from towline_controlplane.sign_ins import MAX_SIGN_INS
from towline_controlplane.store import sign_ins, tables

EMAIL = "ada@example.com"


async def _sign_in(rig: Rig, password: str = PASSWORD) -> Any:
    return await rig.nobody.call("AuthService/Login", email=EMAIL, password=password)


def _bearer(rig: Rig, signed_in: Any) -> Caller:
    return Caller(rig.channel, signed_in.access_token)


async def _is_signed_in(rig: Rig, signed_in: Any) -> bool:
    try:
        await _bearer(rig, signed_in).call("AuthService/GetMe")
    except Refused as refused:
        return refused.code != UNAUTHENTICATED
    return True


async def _refresh(rig: Rig, text: str) -> Any:
    return await rig.nobody.call("AuthService/RefreshToken", refreshToken=text)


def test_a_refresh_token_gives_fresh_tokens_once(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        first = await _sign_in(rig)
        second = await _refresh(rig, first.refresh_token)
        third = await _refresh(rig, second.refresh_token)
        assert len({each.refresh_token for each in (first, second, third)}) == 3
        assert first.refresh_expire_time == second.refresh_expire_time == third.refresh_expire_time
        assert [await _is_signed_in(rig, each) for each in (first, second, third)] == [True] * 3
        assert third.user == first.user

    serve(tmp_path, scenario)


@pytest.mark.parametrize("stolen_before", [1, 2])
def test_a_refresh_token_that_comes_again_ends_the_sign_in(tmp_path: Path, stolen_before: int) -> None:
    """Whoever of the two came first, and however often it has refreshed since."""

    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        first, other = await _sign_in(rig), await _sign_in(rig)
        newest = first
        for _ in range(stolen_before):
            newest = await _refresh(rig, newest.refresh_token)
        assert (await refusal(_refresh(rig, first.refresh_token))).code == UNAUTHENTICATED
        assert (await refusal(_refresh(rig, newest.refresh_token))).code == UNAUTHENTICATED
        assert not await _is_signed_in(rig, first)
        assert not await _is_signed_in(rig, newest)
        assert await _is_signed_in(rig, other)
        await _refresh(rig, other.refresh_token)

    serve(tmp_path, scenario)


def test_two_at_once_with_one_refresh_token_do_not_both_get_tokens(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        first = await _sign_in(rig)
        answers = await asyncio.gather(*[_refresh(rig, first.refresh_token) for _ in range(5)], return_exceptions=True)
        assert sum(not isinstance(answer, Exception) for answer in answers) == 1
        assert not await _is_signed_in(rig, first)

    serve(tmp_path, scenario)


@pytest.mark.parametrize("text", ["", "twr_", "nonsense", f"twr_{'a' * 22}.{'b' * 43}", "x" * 10_000, "twr_ä"])
def test_a_text_that_is_no_refresh_token_is_refused(tmp_path: Path, text: str) -> None:
    async def scenario(rig: Rig) -> None:
        assert (await refusal(_refresh(rig, text))).reason == "UNAUTHENTICATED"

    serve(tmp_path, scenario)


def test_a_refresh_token_is_no_access_token_and_the_reverse(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        signed_in = await _sign_in(rig)
        crossed = Caller(rig.channel, signed_in.refresh_token)
        assert (await refusal(crossed.call("AuthService/GetMe"))).code == UNAUTHENTICATED
        assert (await refusal(_refresh(rig, signed_in.access_token))).code == UNAUTHENTICATED

    serve(tmp_path, scenario)


def test_a_sign_in_ends_for_good_with_its_lifetime(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        signed_in = await _sign_in(rig)
        past = tables.sign_ins.update().values(expire_time=1)
        await rig.database.write(lambda tx: tx.connection.execute(past))
        assert (await refusal(_refresh(rig, signed_in.refresh_token))).code == UNAUTHENTICATED
        assert await rig.database.write(sign_ins.delete_expired) == 1

    serve(tmp_path, scenario)


def test_logging_out_ends_every_token_of_the_sign_in_and_no_other(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        first, other = await _sign_in(rig), await _sign_in(rig)
        second = await _refresh(rig, first.refresh_token)
        await _bearer(rig, second).call("AuthService/Logout")
        assert [await _is_signed_in(rig, each) for each in (first, second, other)] == [False, False, True]
        assert (await refusal(_refresh(rig, second.refresh_token))).code == UNAUTHENTICATED

    serve(tmp_path, scenario)


def test_a_token_without_a_sign_in_is_logged_out_alone(tmp_path: Path) -> None:
    """As the release before issued them."""

    async def scenario(rig: Rig) -> None:
        caller = await rig.user("ada")
        signed_in = await _sign_in(rig)
        await caller.call("AuthService/Logout")
        assert (await refusal(caller.call("AuthService/GetMe"))).code == UNAUTHENTICATED
        assert await _is_signed_in(rig, signed_in)

    serve(tmp_path, scenario)


def test_a_new_password_ends_all_sign_ins_and_begins_one(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        first, other = await _sign_in(rig), await _sign_in(rig)
        changed = await _bearer(rig, first).call(
            "AuthService/ChangePassword", currentPassword=PASSWORD, newPassword="another horse"
        )
        assert [await _is_signed_in(rig, each) for each in (first, other, changed)] == [False, False, True]
        await _refresh(rig, changed.refresh_token)
        assert (await refusal(_refresh(rig, other.refresh_token))).code == UNAUTHENTICATED
        assert (await refusal(_sign_in(rig))).reason == "BAD_CREDENTIALS"
        await _sign_in(rig, "another horse")

    serve(tmp_path, scenario)


def test_a_password_is_changed_only_by_who_knows_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        change = {"currentPassword": "wrong", "newPassword": "another horse"}
        assert (await refusal(user.call("AuthService/ChangePassword", **change))).reason == "BAD_CREDENTIALS"
        change = {"currentPassword": PASSWORD, "newPassword": "short"}
        assert list((await refusal(user.call("AuthService/ChangePassword", **change))).violations) == ["newPassword"]
        await _sign_in(rig)

    serve(tmp_path, scenario)


def test_who_is_disabled_is_answered_like_a_wrong_password(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        signed_in = await _sign_in(rig)
        disable = tables.users.update().values(disabled=True)
        await rig.database.write(lambda tx: tx.connection.execute(disable))
        right, wrong = await refusal(_sign_in(rig)), await refusal(_sign_in(rig, "wrong password"))
        assert right.answer == wrong.answer
        assert (await refusal(user.call("AuthService/GetMe"))).code == UNAUTHENTICATED
        assert (await refusal(_refresh(rig, signed_in.refresh_token))).code == UNAUTHENTICATED

    serve(tmp_path, scenario)


def test_the_sign_ins_of_a_user_are_bounded(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.user("ada")
        first = await _sign_in(rig)
        newest = [await _sign_in(rig) for _ in range(MAX_SIGN_INS - 1)][-1]
        first = await _refresh(rig, first.refresh_token)
        await _sign_in(rig)
        assert len(await rig.database.read(lambda tx: tx.connection.execute(tables.sign_ins.select()).all())) == 100
        await _refresh(rig, first.refresh_token)
        await _refresh(rig, newest.refresh_token)

    serve(tmp_path, scenario)
