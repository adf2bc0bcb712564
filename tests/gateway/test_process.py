"""The gateway as a process: its start, its probes and its end."""

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from gateway_fakes import NOT_SERVING, Context, control_plane, gateway, in_loop
from gateway_processes import gateway_process, start

from towline.v1.run_pb2 import Event
from towline.v1.run_service_pb2 import WatchRunResponse
from towline_gateway.server import address_of, announce, listen
from towline_gateway.settings import Settings


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@in_loop
async def test_a_signal_ends_open_streams_and_then_the_process(number: int, tmp_path: Path) -> None:
    async with control_plane() as fake:

        async def endless(request: Any, context: Context) -> Any:
            yield WatchRunResponse(event=Event(sequence=1), cursor="c1")
            await asyncio.Event().wait()

        fake.on["WatchRun"] = endless
        async with gateway_process(tmp_path, fake.address) as (running, client):
            headers = {"Authorization": "Bearer secret-token", "X-Request-Id": "watch-1"}
            async with client.stream("GET", "/api/runs/r1/events?cursor=c0", headers=headers) as answer:
                lines = answer.aiter_lines()
                while await anext(lines) != "id: c1":
                    pass
                code, log = await running.end(number)
                assert "event: end" not in [line async for line in lines]
        assert code == 0
        (request,) = (line for line in log if line["event"] == "request")
        assert (request["path"], request["status"], request["request_id"]) == ("/api/runs/r1/events", 200, "watch-1")
        assert not [line for line in log if "secret-token" in json.dumps(line) or "c0" in json.dumps(line)]


@in_loop
async def test_an_address_that_is_taken_is_told_and_exit_1(tmp_path: Path) -> None:
    listener = listen("127.0.0.1", 0)
    process = await start(tmp_path, HTTP_PORT=address_of(listener).partition(":")[2])
    _, errors = await process.communicate()
    listener.close()
    assert process.returncode == 1
    assert json.loads(errors)["event"] == "cannot listen"
    assert not (tmp_path / "ready.json").exists()


@in_loop
async def test_a_wrong_setting_is_named_and_exit_2(tmp_path: Path) -> None:
    process = await start(tmp_path, HTTP_PORT="many")
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"HTTP_PORT" in errors


@in_loop
async def test_alive_without_a_control_plane_but_not_ready(tmp_path: Path) -> None:
    async with gateway_process(tmp_path, "127.0.0.1:1") as (_, client):
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["error"]["message"] == "The control plane does not answer: UNAVAILABLE."
        assert (await client.get("/docs")).status_code == 200


@in_loop
async def test_ready_as_the_control_plane_says() -> None:
    async with gateway() as (fake, client):
        assert (await client.get("/readyz")).json() == {"status": "ok"}
        fake.health = NOT_SERVING
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["message"] == "The control plane is NOT_SERVING."


@in_loop
async def test_connections_do_not_wait_to_fill_packets() -> None:
    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    listener = listen("127.0.0.1", 0)
    async with await asyncio.start_server(serve, sock=listener):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await accepted
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_HOST", "HTTP_PORT", "TOWLINE_SERVER", "LOG_LEVEL", "TOWLINE_READY_FILE"):
        monkeypatch.delenv(name, raising=False)
    defaults = Settings.model_validate({})
    assert (defaults.host, defaults.port, defaults.server) == ("127.0.0.1", 3000, "127.0.0.1:50051")
    monkeypatch.setenv("HTTP_PORT", "8080")
    monkeypatch.setenv("TOWLINE_SERVER", "control:1,control:2")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    changed = Settings()  # pyright: ignore[reportCallIssue]
    assert (changed.port, changed.server, changed.log_level) == (8080, "control:1,control:2", "DEBUG")
    with pytest.raises(ValueError, match="frozen"):
        changed.port = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_the_ready_file_appears_whole(tmp_path: Path) -> None:
    announce(tmp_path / "ready.json", "127.0.0.1:1")
    assert json.loads((tmp_path / "ready.json").read_text()) == {"address": "127.0.0.1:1"}
    assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]
