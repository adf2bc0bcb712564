"""Streams end with the credential that opened them, without waiting for their next item; no look is due meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import artifact_rig
import grpc
import pytest
from artifact_rig import ArtifactRig
from grpc import aio
from service_rig import DAG, PASSWORD, SECRET, Caller, Rig, refusal, serve

from towline.v1.agent_service_pb2 import AppendLogsRequest
from towline.v1.plugin_service_pb2 import PushPluginRequest
from towline_controlplane.bus import InProcessDoorbell, credentials_topic
from towline_controlplane.model import Role
from towline_controlplane.tokens import AccessTokens

NEVER = {"recheck_seconds": 3_600.0, "poll_seconds": 3_600.0}


async def _run(user: Caller) -> str:
    workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
    return (await user.call("RunService/StartRun", workflowId=workflow.id)).run.id


async def _read(call: Any) -> grpc.StatusCode:
    """Reads to the end and returns what that is."""
    try:
        async for _ in call:
            pass
    except aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def _log_out(rig: Rig, reader: Caller, key_id: str) -> None:
    await reader.call("AuthService/Logout")


async def _disable(rig: Rig, reader: Caller, key_id: str) -> None:
    await (await rig.admin()).call("UserService/DisableUser", userId=reader.id)


async def _sign_out(rig: Rig, reader: Caller, key_id: str) -> None:
    await (await rig.admin()).call("UserService/SignOutUser", userId=reader.id, apiKeys=True)


async def _change_password(rig: Rig, reader: Caller, key_id: str) -> None:
    await reader.call("AuthService/ChangePassword", currentPassword=PASSWORD, newPassword="another horse")


async def _revoke_key(rig: Rig, reader: Caller, key_id: str) -> None:
    await reader.call("AuthService/RevokeApiKey", apiKeyId=key_id)


End = Callable[[Rig, Caller, str], Awaitable[None]]
ENDS: dict[str, tuple[End, bool, bool]] = {
    "logout": (_log_out, True, False),
    "disabled": (_disable, True, True),
    "signed out": (_sign_out, True, True),
    "new password": (_change_password, True, False),
    "key revoked": (_revoke_key, False, True),
}
"""What is done, and whether it ends the streams of the token and those of the API key."""


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("stream", ["RunService/WatchRun", "RunService/TailLogs"])
def test_an_idle_stream_ends_at_once(tmp_path: Path, end: str, stream: str) -> None:
    how, of_token, of_key = ENDS[end]

    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = await user.call("AuthService/CreateApiKey", name="k", scopes=["*"])
        machine, run_id = Caller(rig.channel, made.key), await _run(user)
        fields: dict[str, Any] = {"runId": run_id} | ({"follow": True} if stream.endswith("Logs") else {})
        calls = [caller.open(stream, **fields) for caller in (user, machine)]
        for call in calls:
            await call.initial_metadata()
        await _settled(rig, user.id, 2)
        await how(rig, user, made.api_key.id)
        for call, ends in zip(calls, (of_token, of_key), strict=True):
            if ends:
                assert await _read(call) == grpc.StatusCode.UNAUTHENTICATED
        await _settled(rig, user.id, 2 - of_token - of_key)
        for call in calls:
            call.cancel()

    serve(tmp_path, scenario, **NEVER)


async def _settled(rig: Rig, user_id: str, watched: int) -> None:
    """Returns when so many streams of a user are watched."""
    async with asyncio.timeout(20):
        while len(rig.doorbell.listeners.get(credentials_topic(user_id), ())) != watched:  # noqa: ASYNC110
            await asyncio.sleep(0)


def test_a_stream_ends_when_its_token_expires(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        run_id = await _run(user)
        row = await rig.accounts.person_of(user.credential)
        brief = AccessTokens(SECRET, lifetime_seconds=2).issue(row.user)
        call = Caller(rig.channel, brief.text).open("RunService/WatchRun", runId=run_id)
        assert await _read(call) == grpc.StatusCode.UNAUTHENTICATED

    serve(tmp_path, scenario, **NEVER)


def test_a_refused_stream_sends_nothing_before(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        run_id = await _run(user)
        await user.call("AuthService/Logout")
        call = user.open("RunService/WatchRun", runId=run_id)
        with pytest.raises(aio.AioRpcError) as caught:
            await anext(aiter(call))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert not caught.value.initial_metadata()

    serve(tmp_path, scenario, **NEVER)


def test_an_upload_that_outlives_its_credential_is_not_kept(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, admin = await rig.user("ada"), await rig.admin()
        begun = asyncio.Event()

        async def chunks() -> AsyncIterator[PushPluginRequest]:
            yield PushPluginRequest(chunk=b"PK")
            begun.set()
            await _settled(rig, user.id, 1)
            await user.call("AuthService/Logout")
            await _settled(rig, user.id, 0)
            yield PushPluginRequest(chunk=b"more")

        refused = await refusal(user.call("PluginService/PushPlugin", chunks()))
        assert begun.is_set()
        assert refused.reason == "UNAUTHENTICATED"
        assert not [
            each for each in (await admin.call("PluginService/ListPlugins")).plugins if each.owner_id == user.id
        ]

    serve(tmp_path, scenario, **NEVER)


def test_a_ring_that_says_nothing_ends_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        call = user.open("RunService/WatchRun", runId=await _run(user))
        await _settled(rig, user.id, 1)
        rig.doorbell.ring([credentials_topic(user.id)])
        await agent.succeed_all()
        assert await _read(call) == grpc.StatusCode.OK

    serve(tmp_path, scenario, **NEVER)


def test_a_stream_of_an_agent_ends_when_an_admin_disables_it(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        accounts, doorbell = rig.control_plane.parts.accounts, rig.control_plane.parts.guard.doorbell
        assert isinstance(doorbell, InProcessDoorbell)
        await accounts.register("admin@example.com", PASSWORD, "Admin", Role.ADMIN)
        nobody = Caller(rig.channel)
        signed_in = await nobody.call("AuthService/Login", email="admin@example.com", password=PASSWORD)
        agent = Caller(rig.channel, (await rig.agent()).credential)
        never = asyncio.Event()

        async def silence() -> AsyncIterator[AppendLogsRequest]:
            await never.wait()
            yield AppendLogsRequest()

        call = agent.open("AgentService/AppendLogs", silence())
        reading = asyncio.create_task(_read(call))
        while credentials_topic("id-of-agent-1") not in doorbell.listeners:  # noqa: ASYNC110
            await asyncio.sleep(0)
        admin = Caller(rig.channel, signed_in.access_token)
        await admin.call("AgentAdminService/DisableAgent", agentId="agent-1")
        assert await reading == grpc.StatusCode.UNAUTHENTICATED

    artifact_rig.serve(tmp_path, scenario)
