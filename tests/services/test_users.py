"""Users as an admin sees them: what an admin takes away is gone at once, and one admin always stays."""

import asyncio
from pathlib import Path

import pytest
from service_rig import INVALID_ARGUMENT, NOT_FOUND, PASSWORD, UNAUTHENTICATED, Rig, refusal, serve

FAILED_PRECONDITION = "INVALID_STATE"


def test_users_are_listed_by_email_and_found_by_id_or_email(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        for name in ("eve", "ada", "bob"):
            await rig.user(name)
        first = await admin.call("UserService/ListUsers", pageSize=3)
        rest = await admin.call("UserService/ListUsers", pageSize=3, pageToken=first.next_page_token)
        emails = [user.email.partition("@")[0] for user in (*first.users, *rest.users)]
        assert emails == ["ada", "admin", "bob", "eve"]
        by_id = await admin.call("UserService/GetUser", userId="user-ada")
        by_email = await admin.call("UserService/GetUser", userId="Ada@example.com")
        assert by_id == by_email
        for unknown in ("nobody", "nobody@example.com", ""):
            assert (await refusal(admin.call("UserService/GetUser", userId=unknown))).code == NOT_FOUND

    serve(tmp_path, scenario)


def test_a_role_is_given_and_taken_at_once(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, user = await rig.admin(), await rig.user("ada")
        promoted = (await admin.call("UserService/SetUserRole", userId="user-ada", role="ADMIN")).user
        assert promoted.role == 2
        assert (await refusal(user.call("AuthService/GetMe"))).code == UNAUTHENTICATED
        signed_in = await rig.nobody.call("AuthService/Login", email="ada@example.com", password=PASSWORD)
        user.credential = signed_in.access_token
        await user.call("UserService/SetUserRole", userId="user-admin", role="USER")
        assert (await refusal(admin.call("AuthService/GetMe"))).code == UNAUTHENTICATED

    serve(tmp_path, scenario)


def test_the_same_role_again_ends_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        await admin.call("UserService/SetUserRole", userId="user-admin", role="ADMIN")
        await admin.call("AuthService/GetMe")
        refused = await refusal(admin.call("UserService/SetUserRole", userId="user-admin"))
        assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, ["role"])

    serve(tmp_path, scenario)


@pytest.mark.parametrize(("method", "fields"), [("SetUserRole", {"role": "USER"}), ("DisableUser", {})])
def test_the_last_admin_stays_one(tmp_path: Path, method: str, fields: dict[str, str]) -> None:
    async def scenario(rig: Rig) -> None:
        admin, other = await rig.admin(), await rig.user("ada")
        refused = await refusal(admin.call(f"UserService/{method}", userId="user-admin", **fields))
        assert refused.reason == FAILED_PRECONDITION
        await admin.call("UserService/SetUserRole", userId=other.id, role="ADMIN")
        await admin.call("UserService/DisableUser", userId=other.id)
        refused = await refusal(admin.call(f"UserService/{method}", userId="user-admin", **fields))
        assert refused.reason == FAILED_PRECONDITION
        await admin.call("UserService/EnableUser", userId=other.id)
        await admin.call(f"UserService/{method}", userId="user-admin", **fields)

    serve(tmp_path, scenario)


def test_two_admins_who_disable_each_other_at_once_leave_one(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, other = await rig.admin(), await rig.user("ada")
        await admin.call("UserService/SetUserRole", userId=other.id, role="ADMIN")
        signed_in = await rig.nobody.call("AuthService/Login", email="ada@example.com", password=PASSWORD)
        other.credential = signed_in.access_token
        await asyncio.gather(
            admin.call("UserService/DisableUser", userId=other.id),
            other.call("UserService/DisableUser", userId="user-admin"),
            return_exceptions=True,
        )
        still = [caller for caller in (admin, other) if not await _is_refused(caller.call("AuthService/GetMe"))]
        assert len(still) == 1

    serve(tmp_path, scenario)


async def _is_refused(call: object) -> bool:
    try:
        await refusal(call)  # type: ignore[arg-type]
    except AssertionError:
        return False
    return True


def test_a_disabled_user_is_refused_with_all_it_has(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, user = await rig.admin(), await rig.user("ada")
        signed_in = await rig.nobody.call("AuthService/Login", email="ada@example.com", password=PASSWORD)
        key = (await user.call("AuthService/CreateApiKey", name="k", scopes=["*"])).key
        disabled = (await admin.call("UserService/DisableUser", userId=user.id)).user
        assert disabled.disabled
        for credential in (user.credential, signed_in.access_token, key):
            user.credential = credential
            assert (await refusal(user.call("AuthService/GetMe"))).code == UNAUTHENTICATED
        refresh = {"refreshToken": signed_in.refresh_token}
        assert (await refusal(rig.nobody.call("AuthService/RefreshToken", **refresh))).code == UNAUTHENTICATED
        await admin.call("UserService/EnableUser", userId=user.id)
        user.credential = signed_in.access_token
        assert (await refusal(user.call("AuthService/GetMe"))).code == UNAUTHENTICATED
        user.credential = key
        await user.call("AuthService/GetMe")

    serve(tmp_path, scenario)


def test_an_admin_gives_a_new_password(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, user = await rig.admin(), await rig.user("ada")
        new = {"userId": "ada@example.com", "password": "another horse"}
        await admin.call("UserService/SetUserPassword", **new)
        assert (await refusal(user.call("AuthService/GetMe"))).code == UNAUTHENTICATED
        await rig.nobody.call("AuthService/Login", email="ada@example.com", password="another horse")
        refused = await refusal(admin.call("UserService/SetUserPassword", **(new | {"password": "short"})))
        assert list(refused.violations) == ["password"]

    serve(tmp_path, scenario)


@pytest.mark.parametrize("keys_too", [False, True])
def test_a_user_is_signed_out_everywhere(tmp_path: Path, keys_too: bool) -> None:
    async def scenario(rig: Rig) -> None:
        admin, user = await rig.admin(), await rig.user("ada")
        key = (await user.call("AuthService/CreateApiKey", name="k", scopes=["*"])).key
        await admin.call("UserService/SignOutUser", userId=user.id, apiKeys=keys_too)
        assert (await refusal(user.call("AuthService/GetMe"))).code == UNAUTHENTICATED
        user.credential = key
        assert await _is_refused(user.call("AuthService/GetMe")) == keys_too

    serve(tmp_path, scenario)
