"""Real processes of Towline for a scenario: started, killed, restarted, and never left behind."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from towline_cli.child import Child, ChildSpec

PATIENCE_SECONDS = 60.0
PASSWORD = "correct horse"


@dataclass(slots=True)
class Installation:
    """A control plane, a gateway and agents on free ports, each of which a scenario may kill."""

    folder: Path
    parts: dict[str, Child] = field(default_factory=dict[str, Child])
    environments: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    grpc: str = ""
    http: str = ""

    async def start_control_plane(self, **settings: str) -> None:
        """Starts the control plane; after a kill it comes back on the same port."""
        port = self.grpc.rpartition(":")[2] or "0"
        token_file = self.folder / "enrollment-token"
        if not token_file.exists():
            token_file.write_text(secrets.token_urlsafe(32))
        environment = {
            "TOWLINE_DATA_DIR": str(self.folder / "data"),
            "GRPC_PORT": port,
            "JWT_SECRET": "a-secret-of-the-tests-that-is-long-enough",
            "TOWLINE_BCRYPT_COST": "4",
            "TOWLINE_ENROLLMENT_TOKEN_FILE": str(token_file),
            "ADMIN_EMAIL": "admin@example.com",
            "ADMIN_PASSWORD": PASSWORD,
            **settings,
        }
        self.grpc = (await self._start("controlplane", "controlplane", environment))["address"]

    async def start_gateway(self) -> None:
        """Starts the gateway."""
        port = self.http.rpartition(":")[2] or "0"
        ready = await self._start("gateway", "gateway", {"HTTP_PORT": port, "TOWLINE_SERVER": self.grpc})
        self.http = ready["address"]

    async def start_agent(self, name: str = "agent-1", **settings: str) -> None:
        """Starts an agent; after a kill it comes back under its name."""
        environment = {
            "TOWLINE_SERVER": self.grpc,
            "TOWLINE_AGENT_NAME": name,
            "TOWLINE_AGENT_DIR": str(self.folder / name),
            "TOWLINE_ENROLLMENT_TOKEN_FILE": str(self.folder / "enrollment-token"),
            **settings,
        }
        await self._start(name, "agent", environment)

    async def kill(self, name: str) -> None:
        """Kills a part as a power cut would."""
        child = self.parts[name]
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL

    async def restart(self, name: str) -> None:
        """Starts a part that was killed again, as it was."""
        await self.parts[name].start(self.environments[name], PATIENCE_SECONDS)

    async def audit(self) -> None:
        """Fails with every invariant that the database does not keep; the control plane may be running."""
        settings = self.environments["controlplane"]
        auditing = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "towline_controlplane.audit"),
            env=settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await auditing.communicate()
        assert auditing.returncode == 0, said.decode()

    async def close(self) -> None:
        """Ends everything; a part that does not end politely is a failure."""
        polite = [await child.stop(20) for child in reversed(self.parts.values())]
        assert all(polite), f"killed after the grace period: {dict(zip(reversed(self.parts), polite, strict=True))}"

    def logs(self) -> str:
        """Returns what all parts have said."""
        return "\n".join(f"== {file.name}\n{file.read_text()}" for file in sorted(self.folder.glob("*.log")))

    async def _start(self, name: str, part: str, settings: Mapping[str, str]) -> dict[str, Any]:
        command = (sys.executable, "-P", "-m", f"towline_{part}")
        spec = ChildSpec(name, command, self.folder / f"{name}.ready", self.folder / f"{name}.log")
        child = self.parts[name] = Child(spec)
        environment = self.environments[name] = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **settings}
        # Another start keeps the port of the first.
        ready = await child.start(environment, PATIENCE_SECONDS)
        for variable in ("GRPC_PORT", "HTTP_PORT"):
            if variable in environment:
                environment[variable] = ready["address"].rpartition(":")[2]
        return ready


@contextlib.asynccontextmanager
async def installed(folder: Path, **control_plane_settings: str) -> AsyncGenerator[Installation]:
    """Yields a running control plane, gateway and agent; prints their logs if the scenario fails.

    What the scenario leaves in the database keeps every invariant.
    """
    installation = Installation(folder)
    try:
        await installation.start_control_plane(**control_plane_settings)
        await installation.start_gateway()
        await installation.start_agent()
        yield installation
        await installation.audit()
        await installation.close()
    except BaseException:
        for child in reversed(installation.parts.values()):
            await child.stop(5)
        print(installation.logs())
        raise


class Rest:
    """The REST API as a signed-in user sees it, over plain urllib."""

    def __init__(self, http: str) -> None:
        self._base = f"http://{http}/api"
        self.token = ""

    def sign_in(self, email: str = "ada@example.com") -> None:
        """Registers a user and logs in."""
        self.post("/auth/register", {"email": email, "password": PASSWORD, "name": "Ada"})
        self.token = self.post("/auth/login", {"email": email, "password": PASSWORD})["accessToken"]

    def post(self, path: str, body: object | None = None, **headers: str) -> Any:
        """Returns the answer to a POST."""
        return self.call("POST", path, body, headers)

    def get(self, path: str) -> Any:
        """Returns the answer to a GET."""
        return self.call("GET", path, None, {})

    def call(self, method: str, path: str, body: object | None, headers: Mapping[str, str]) -> Any:
        """Returns the decoded answer, of an error too."""
        with contextlib.closing(self._open(method, path, body, headers)) as answer:
            return json.load(answer)

    def events(self, run_id: str, after: str = "") -> Iterator[dict[str, Any]]:
        """Yields the history of a run as it happens, until it ends."""
        for name, data in self.stream(f"/runs/{run_id}/events", {"Last-Event-ID": after} if after else {}):
            if name == "end":
                return
            assert name != "error", data
            yield data

    def stream(self, path: str, headers: Mapping[str, str] | None = None) -> Iterator[tuple[str, Any]]:
        """Yields name and data of server-sent events."""
        with contextlib.closing(self._open("GET", path, None, headers or {})) as answer:
            name = "message"
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

    def _open(self, method: str, path: str, body: object | None, headers: Mapping[str, str]) -> Any:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        request = urllib.request.Request(self._base + path, data, method=method)
        for key, value in ({"Content-Type": kind} if data is not None else {}).items() | headers.items():
            request.add_header(key, value)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            return urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)
        except urllib.error.HTTPError as refused:
            return refused


async def until(events: Iterator[dict[str, Any]], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Returns the first event that is wanted."""

    def read() -> dict[str, Any]:
        return next(event for event in events if wanted(event))

    return await asyncio.to_thread(read)
