"""What every call has in common: a request id, one form of error, and a line in the log."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from service_rig import DAG, Caller, Refused, Rig, refusal, serve
from structlog.testing import capture_logs

from towline.v1.plugin_service_pb2 import PushPluginRequest
from towline_controlplane.store import enrollment_tokens, runs
from towline_controlplane.tokens import fingerprint

SPOT = "secret detail of the defect"


def test_a_defect_is_named_by_its_request_and_shown_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError(SPOT)

    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        monkeypatch.setattr(runs, "get_run", fail)
        with capture_logs() as logged:
            refused = await refusal(user.call("RunService/GetRun", runId="r"))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert SPOT not in str(refused.status)
        assert refused.info.metadata["requestId"] in refused.message
        assert [(line["event"], line["exc_info"]) for line in logged] == [("call failed", True)]
        refused = await refusal(user.call("RunService/WatchRun", runId="r"))
        assert refused.reason == "INTERNAL"

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("my-request.1", True), ("", False), ("x" * 129, False), ("two words", False)],
)
def test_the_request_id_is_the_callers_if_it_is_one(tmp_path: Path, sent: str, kept: bool) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        metadata = [("authorization", f"Bearer {user.credential}"), ("x-request-id", sent)]
        call = user.open("AuthService/GetMe", metadata=metadata)
        await call
        answered = dict(await call.trailing_metadata())["x-request-id"]
        assert (answered == sent) is kept
        assert answered
        call = user.open("RunService/GetRun", runId="none", metadata=metadata)
        with pytest.raises(aio.AioRpcError) as caught:
            await call
        refused = Refused(caught.value)
        assert (refused.trailers["x-request-id"] == sent) is kept
        assert refused.info.metadata["requestId"] == refused.trailers["x-request-id"]

    serve(tmp_path, scenario)


def test_mutations_leave_one_line_without_secrets(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        with capture_logs() as logged:
            await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)
            await user.call("WorkflowService/ListWorkflows")
            await refusal(user.call("WorkflowService/DeleteWorkflow", workflowId="none"))
            await refusal(rig.nobody.call("AuthService/Login", email="a@b.c", password="hunter2 hunter2"))
        assert [line["code"] for line in logged] == ["OK", "NOT_FOUND", "UNAUTHENTICATED"]
        assert user.credential not in str(logged)
        assert "hunter2" not in str(logged)

    serve(tmp_path, scenario)


def test_a_long_id_is_not_echoed(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        refused = await refusal(user.call("RunService/GetRun", runId="x" * 1_000_000))
        assert len(refused.message) < 200

    serve(tmp_path, scenario)


def test_a_refused_sender_hears_why(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        requests = [PushPluginRequest(chunk=b"x" * (1 << 20)) for _ in range(30)]
        for _ in range(20):
            async with aio.insecure_channel(rig.address) as channel:
                refused = await refusal(Caller(channel).call("PluginService/PushPlugin", requests))
                assert refused.reason == "UNAUTHENTICATED"

    serve(tmp_path, scenario)


def test_a_message_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        refused = await refusal(user.call("RunService/StartRun", workflowId="w", input="x" * (17 << 20)))
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED

    serve(tmp_path, scenario)


def test_a_second_server_does_not_share_the_port(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        other = aio.server(options=[("grpc.so_reuseport", 1)])
        with pytest.raises(RuntimeError, match="bind"):
            other.add_insecure_port(rig.address)

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"uses": -1}, ["uses"]),
        ({"uses": 10_001}, ["uses"]),
        ({"lifetime": "0s"}, ["lifetime"]),
        ({"lifetime": "2592001s"}, ["lifetime"]),
        ({"lifetime": "-5s"}, ["lifetime"]),
    ],
)
def test_an_enrollment_token_is_bounded(tmp_path: Path, fields: dict[str, Any], wrong: list[str]) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        refused = await refusal(admin.call("AgentAdminService/CreateEnrollmentToken", **fields))
        assert list(refused.violations) == wrong

    serve(tmp_path, scenario)


def test_an_enrollment_token_is_shown_once_and_stored_as_its_hash(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        made = await admin.call("AgentAdminService/CreateEnrollmentToken", uses=2)
        assert made.token.startswith("twe_")
        uses = [
            await rig.database.write(lambda tx: enrollment_tokens.use(tx, fingerprint(made.token))) for _ in range(3)
        ]
        assert uses == [True, True, False]
        assert made.token.encode() not in (rig.folder / "towline.db").read_bytes()

    serve(tmp_path, scenario)


def test_a_caller_never_sees_the_caller_before_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        callers: list[Caller] = [await rig.user(f"u{n}") for n in range(10)]

        async def ask(caller: Caller) -> None:
            for _ in range(20):
                assert (await caller.call("AuthService/GetMe")).user.id == caller.id

        await asyncio.gather(*map(ask, callers))

    serve(tmp_path, scenario)
