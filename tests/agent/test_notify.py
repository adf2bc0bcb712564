"""What a service manager hears, on a socket as systemd makes it."""

import asyncio
import signal
import socket
from collections import deque
from pathlib import Path

import pytest
from fake_agent_service import serve
from running_agent import run
from test_agent_process import agent_process

from towline.v1.agent_service_pb2 import SyncRequest
from towline_agent.control_plane import Unavailable
from towline_agent.notify import ServiceManager, WatchedRenewal
from towline_agent.testing import FakeControlPlane


def listening(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    listener.settimeout(20)
    return listener


def test_an_agent_says_when_it_is_ready_alive_and_stopping(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake, address = FakeControlPlane(), str(tmp_path / "notify")
        fake.errors["sync"] = deque([Unavailable("not yet")])
        watched = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"}
        with listening(address) as systemd:

            async def hears() -> str:
                return (await asyncio.to_thread(systemd.recv, 4096)).decode()

            async with serve(fake) as (server, _), agent_process(tmp_path, server, **watched) as agent:
                assert await hears() == f"STATUS=waits for {server}"
                heard = [await hears() for _ in range(3)]
                assert heard.index("WATCHDOG=1") < heard.index("READY=1\nSTATUS=accepted by the control plane")
                agent.process.send_signal(signal.SIGTERM)
                while (said := await hears()) == "WATCHDOG=1":
                    pass
                assert said == "STOPPING=1\nSTATUS=draining"
                assert (await agent.ended())[0] == 0

    run(scenario)


def test_an_abstract_socket_is_found() -> None:
    with listening("\0towline-test-of-notify") as systemd:
        ServiceManager({"NOTIFY_SOCKET": "@towline-test-of-notify"}).ready()
        assert systemd.recv(100).startswith(b"READY=1")


def test_signs_of_life_are_for_a_watchdog_only(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with listening(address) as systemd:
        manager = ServiceManager({"NOTIFY_SOCKET": address})
        manager.alive()
        manager.stopping()
        assert systemd.recv(100).startswith(b"STOPPING=1")


def test_one_that_is_gone_does_not_end_the_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ServiceManager({}).ready()
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert "service_manager_not_told" in capsys.readouterr().out


def test_a_control_plane_that_is_away_does_not_make_the_agent_look_dead() -> None:
    class Away:
        def sync(self, request: SyncRequest, timeout_seconds: float) -> None:
            raise Unavailable("away")

        def close(self) -> None: ...

    signs = list[int]()
    renewal = WatchedRenewal(Away(), lambda: signs.append(1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(Unavailable):
        renewal.sync(SyncRequest(), 1.0)
    assert signs == [1]
