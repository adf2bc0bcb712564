"""Real processes of Towline for a scenario: started, killed, restarted, and never left behind."""

import asyncio
import contextlib
import http.client
import json
import os
import secrets
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from faulty_network import Link, Network

from towline_cli.child import Child, ChildSpec

PATIENCE_SECONDS = 60.0
PASSWORD = "correct horse"


@dataclass(slots=True)
class Installation:
    """Control planes, a gateway and agents on free ports, each of which a scenario may kill or stop.

    With a network, each client reaches each control plane over a link of its own.
    """

    folder: Path
    net: Network | None = None
    parts: dict[str, Child] = field(default_factory=dict[str, Child])
    environments: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    control_planes: dict[str, str] = field(default_factory=dict[str, str])
    http: str = ""
    python: str = sys.executable
    """The interpreter of what is started, unless told otherwise."""
    _stopped: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    @property
    def grpc(self) -> str:
        """The address of the first control plane, past the network."""
        return next(iter(self.control_planes.values()))

    async def start_control_plane(self, name: str = "controlplane", **settings: str) -> None:
        """Starts a control plane; after a kill it comes back on the same port."""
        environment = {
            "TOWLINE_DATA_DIR": str(self.folder / "data"),
            "GRPC_PORT": "0",
            "JWT_SECRET": "a-secret-of-the-tests-that-is-long-enough",
            "TOWLINE_BCRYPT_COST": "4",
            "TOWLINE_ENROLLMENT_TOKEN_FILE": str(self._enrollment_token()),
            "ADMIN_EMAIL": "admin@example.com",
            "ADMIN_PASSWORD": PASSWORD,
            **settings,
        }
        self.control_planes[name] = (await self._start(name, "controlplane", environment))["address"]

    async def start_gateway(self, name: str = "gateway") -> None:
        """Starts the gateway, a client of all control planes there are now."""
        ready = await self._start(name, "gateway", {"HTTP_PORT": "0", "TOWLINE_SERVER": self.servers(name)})
        self.http = ready["address"]

    async def start_agent(self, name: str = "agent-1", *, python: str = "", **settings: str) -> None:
        """Starts an agent, a client of all control planes there are now; after a kill it comes back under its name.

        `python` is the interpreter of its installation, if it is one of its own.
        """
        environment = {
            "TOWLINE_SERVER": self.servers(name),
            "TOWLINE_AGENT_NAME": name,
            "TOWLINE_AGENT_DIR": str(self.folder / name),
            "TOWLINE_ENROLLMENT_TOKEN_FILE": str(self._enrollment_token()),
            # The plugins of these tests leave traces in files of the host; `make demo` runs in the strongest sandbox.
            "TOWLINE_AGENT_SANDBOX": "L0",
            **settings,
        }
        await self._start(name, "agent", environment, python)

    def servers(self, client: str) -> str:
        """Returns the addresses at which a client finds the control planes."""
        found = self.control_planes
        if self.net is not None:
            found = {name: self.net.link(client, name, address).address for name, address in found.items()}
        return ",".join(found.values())

    def links(self, client: str) -> list[Link]:
        """Returns the links of a client to the control planes."""
        assert self.net is not None
        return self.net.links_of(client)

    async def kill(self, name: str) -> None:
        """Kills a part as a power cut would."""
        child = self.parts[name]
        os.kill(self._pid(name), signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL

    async def restart(self, name: str) -> None:
        """Starts a part that was killed again, as it was."""
        await self.parts[name].start(self.environments[name], PATIENCE_SECONDS)

    def stop(self, name: str, *, supervisor: bool = True) -> None:
        """Stops a part where it stands, an agent with its supervisor; the plugins go on."""
        children = psutil.Process(self._pid(name)).children() if supervisor else []
        self._stopped[name] = [self._pid(name), *(child.pid for child in children)]
        for pid in self._stopped[name]:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """Lets a stopped part go on."""
        for pid in self._stopped.pop(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def audit(self) -> None:
        """Fails with every invariant that the database does not keep; the control plane may be running."""
        settings = self.environments[next(iter(self.control_planes))]
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

    async def abandon(self) -> None:
        """Ends everything, whatever state it is in."""
        for name in list(self._stopped):
            self.go_on(name)
        for child in reversed(self.parts.values()):
            await child.stop(5)

    def logs(self) -> str:
        """Returns what all parts have said."""
        return "\n".join(f"== {file.name}\n{file.read_text()}" for file in sorted(self.folder.glob("*.log")))

    def said(self, name: str, words: str) -> bool:
        """Tells whether a part has logged these words."""
        return words in (self.folder / f"{name}.log").read_text()

    def _pid(self, name: str) -> int:
        pid = self.parts[name].pid
        assert pid is not None
        return pid

    def _enrollment_token(self) -> Path:
        file = self.folder / "enrollment-token"
        if not file.exists():
            file.write_text(secrets.token_urlsafe(32))
        return file

    async def _start(self, name: str, part: str, settings: Mapping[str, str], python: str = "") -> dict[str, Any]:
        command = (python or self.python, "-P", "-m", f"towline_{part}")
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
async def installed(
    folder: Path, *, net: Network | None = None, agents: int = 1, replicas: int = 1, **control_plane_settings: str
) -> AsyncGenerator[Installation]:
    """Yields running control planes, started at once, a gateway and agents; prints their logs if the scenario fails.

    What the scenario leaves in the database keeps every invariant.
    """
    installation = Installation(folder, net)
    try:
        names = ["controlplane", *(f"controlplane-{number}" for number in range(2, replicas + 1))]
        await asyncio.gather(*(installation.start_control_plane(name, **control_plane_settings) for name in names))
        starts = [installation.start_agent(f"agent-{number + 1}") for number in range(agents)]
        await asyncio.gather(installation.start_gateway(), *starts)
        yield installation
        await installation.audit()
        await installation.close()
    except BaseException:
        await installation.abandon()
        print(installation.logs())
        raise


class Rest:
    """The REST API as a signed-in user sees it, over plain urllib."""

    def __init__(self, http: str) -> None:
        self._base = f"http://{http}/api"
        self.token = ""
        self.last_event_id = ""
        """The id of the newest event that a stream has yielded."""

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
            name, event_id = "message", ""
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line.startswith("id: "):
                    event_id = line.removeprefix("id: ")
                elif line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.last_event_id = event_id
                    yield name, json.loads(line.removeprefix("data: "))

    def insist(self, method: str, path: str, body: object | None = None, **headers: str) -> Any:
        """Returns the answer of an installation that may be away for a while; only for what may be repeated."""
        gives_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self.call(method, path, body, headers)
            except (urllib.error.URLError, ConnectionError, http.client.HTTPException, TimeoutError) as error:
                answer = {"error": {"code": 503, "message": str(error)}}
            if answer.get("error", {}).get("code") not in (503, 504):
                return answer
            assert time.monotonic() < gives_up_at, answer
            time.sleep(0.1)

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
