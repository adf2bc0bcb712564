"""API keys: what a machine may do with one, and what it may not."""

from pathlib import Path
from typing import Any

import pytest
from service_rig import (
    DAG,
    INVALID_ARGUMENT,
    METHODS,
    NOT_FOUND,
    PERMISSION_DENIED,
    SERVICES,
    UNAUTHENTICATED,
    Caller,
    Refused,
    Rig,
    refusal,
    serve,
)

from towline_controlplane.api_keys import MAX_KEYS, reaches
from towline_controlplane.services.access import key_scopes
from towline_controlplane.store import tables

SCOPES = key_scopes(SERVICES)


def _path(name: str) -> str:
    return f"/towline.v1.{name}"


async def _key(rig: Rig, owner: Caller, *scopes: str, **fields: Any) -> Caller:
    made = await owner.call("AuthService/CreateApiKey", name="ci", scopes=scopes, **fields)
    return Caller(rig.channel, made.key, owner.id)


def test_a_key_is_shown_once_and_stored_as_its_hash(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = await user.call("AuthService/CreateApiKey", name=" ci ", scopes=["runs:read", "runs:read"])
        assert made.key.startswith("twk_")
        assert (made.api_key.name, list(made.api_key.scopes)) == ("ci", ["runs:read"])
        assert made.key.startswith(made.api_key.prefix)
        assert not made.api_key.HasField("expire_time")
        listed = (await user.call("AuthService/ListApiKeys")).api_keys
        assert list(listed) == [made.api_key]
        assert made.key.encode() not in b"".join(each.read_bytes() for each in rig.folder.glob("towline.db*"))

    serve(tmp_path, scenario)


def test_a_key_does_what_its_scopes_say(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        key = await _key(rig, user, "workflows:*", "runs:read")
        workflow = (await key.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        assert workflow.owner_id == user.id
        await key.call("RunService/ListRuns")
        refused = await refusal(key.call("RunService/StartRun", workflowId=workflow.id))
        assert (refused.code, "runs:write" in refused.message) == (PERMISSION_DENIED, True)
        assert (await key.call("AuthService/GetMe")).user.id == user.id

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    "scopes", [["runs:read"], ["runs:write"], ["runs:*", "workflows:read"], ["*"], ["admin"], ["admin", "*"]]
)
def test_every_method_is_open_to_exactly_the_keys_that_reach_it(tmp_path: Path, scopes: list[str]) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        key = await _key(rig, admin, *scopes)
        for name, method in METHODS.items():
            if name.startswith("AgentService/") or method.client_streaming:
                continue
            needed = SCOPES.get(_path(name), "closed")
            if name in ("AuthService/Register", "AuthService/Login", "AuthService/RefreshToken"):
                assert needed == "closed"
                continue
            may = needed == "" or (needed != "closed" and reaches(scopes, needed))
            assert (await _code(key, name) != PERMISSION_DENIED) == may, (name, needed)

    serve(tmp_path, scenario)


def test_no_key_makes_keys_or_touches_the_password(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        key = await _key(rig, admin, "*", "admin")
        for method in ("Logout", "ChangePassword", "CreateApiKey", "ListApiKeys", "RevokeApiKey"):
            assert await _code(key, f"AuthService/{method}") == PERMISSION_DENIED, method

    serve(tmp_path, scenario)


def test_a_key_of_an_admin_acts_as_a_user_unless_it_says_admin(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, other = await rig.admin(), await rig.user("ada")
        await other.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)
        plain, full = await _key(rig, admin, "*"), await _key(rig, admin, "*", "admin")
        assert not (await plain.call("WorkflowService/ListWorkflows")).workflows
        assert (await refusal(plain.call("UserService/ListUsers"))).code == PERMISSION_DENIED
        assert len((await full.call("WorkflowService/ListWorkflows")).workflows) == 1
        assert len((await full.call("UserService/ListUsers")).users) == 2

    serve(tmp_path, scenario)


def test_an_admin_scope_makes_nobody_an_admin(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        key = await _key(rig, await rig.user("ada"), "*", "admin")
        assert (await refusal(key.call("UserService/ListUsers"))).code == PERMISSION_DENIED

    serve(tmp_path, scenario)


def test_a_key_counts_until_it_expires_or_is_revoked(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        brief, long = await _key(rig, user, "*", lifetime="60s"), await _key(rig, user, "*")
        await brief.call("AuthService/GetMe")
        expire = tables.api_keys.update().where(tables.api_keys.c.expire_time.is_not(None)).values(expire_time=1)
        await rig.database.write(lambda tx: tx.connection.execute(expire))
        assert (await refusal(brief.call("AuthService/GetMe"))).code == UNAUTHENTICATED
        await long.call("AuthService/GetMe")
        for key in (await user.call("AuthService/ListApiKeys")).api_keys:
            await user.call("AuthService/RevokeApiKey", apiKeyId=key.id)
        assert (await refusal(long.call("AuthService/GetMe"))).code == UNAUTHENTICATED

    serve(tmp_path, scenario)


def test_the_use_of_a_key_is_noted(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        key = await _key(rig, user, "*")

        async def used() -> Any:
            listed = (await user.call("AuthService/ListApiKeys")).api_keys[0]
            return listed.use_time if listed.HasField("use_time") else None

        assert await used() is None
        await key.call("AuthService/GetMe")
        first = await used()
        await key.call("AuthService/GetMe")
        assert first is not None
        assert await used() == first

    serve(tmp_path, scenario)


def test_keys_of_others_are_neither_seen_nor_revoked(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        owner, other = await rig.user("ada"), await rig.user("eve")
        made = await owner.call("AuthService/CreateApiKey", name="k", scopes=["*"])
        assert not (await other.call("AuthService/ListApiKeys")).api_keys
        foreign = await refusal(other.call("AuthService/RevokeApiKey", apiKeyId=made.api_key.id))
        unknown = await refusal(other.call("AuthService/RevokeApiKey", apiKeyId="x" * 36))
        assert (foreign.code, foreign.message.replace(made.api_key.id, "?")) == (
            NOT_FOUND,
            unknown.message.replace("x" * 36, "?"),
        )
        await Caller(rig.channel, made.key).call("AuthService/GetMe")

    serve(tmp_path, scenario)


def test_keys_are_listed_page_by_page(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = [(await user.call("AuthService/CreateApiKey", name=f"k{n}", scopes=["*"])).api_key for n in range(3)]
        first = await user.call("AuthService/ListApiKeys", pageSize=2)
        rest = await user.call("AuthService/ListApiKeys", pageSize=2, pageToken=first.next_page_token)
        assert [*first.api_keys, *rest.api_keys] == made[::-1]
        assert not rest.next_page_token

    serve(tmp_path, scenario)


def test_nobody_has_more_keys_than_the_limit(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        for _ in range(MAX_KEYS):
            await _key(rig, user, "*")
        assert (await refusal(_key(rig, user, "*"))).reason == "LIMIT_EXCEEDED"

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["*"] * 33}, "scopes"),
        ({"scopes": ["*", "runs"]}, "scopes[1]"),
        ({"scopes": ["auths:read"]}, "scopes[0]"),
        ({"scopes": ["users:read"]}, "scopes[0]"),
        ({"lifetime": "0s"}, "lifetime"),
        ({"lifetime": "-1s"}, "lifetime"),
        ({"lifetime": "315360001s"}, "lifetime"),
    ],
)
def test_making_a_key_names_the_wrong_field(tmp_path: Path, fields: dict[str, Any], wrong: str) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        refused = await refusal(user.call("AuthService/CreateApiKey", **({"name": "k", "scopes": ["*"]} | fields)))
        assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, [wrong])

    serve(tmp_path, scenario)


async def _code(caller: Caller, name: str) -> Any:
    try:
        await caller.call(name)
    except Refused as refused:
        return refused.code
    return None
