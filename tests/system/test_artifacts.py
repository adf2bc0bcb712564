"""Files of a step on their way, while processes are killed: seen whole or not at all, and read by the next step."""

import asyncio
import hashlib
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from postgres_server import PostgresServer
from processes import PATIENCE_SECONDS, Installation, Rest, installed
from side_file import eventually

MEGABYTES = 96
BUILD = f'head -c {MEGABYTES << 20} /dev/urandom > "$TOWLINE_ARTIFACTS/big"; echo small > "$TOWLINE_ARTIFACTS/note.txt"'
CHECK = 'sha256sum < "$TOWLINE_INPUTS/build/big"; cat "$TOWLINE_INPUTS/build/note.txt"'
DAG: dict[str, Any] = {
    "nodes": [
        {"id": "build", "type": "SHELL", "config": {"command": BUILD}, "timeoutMs": 120_000},
        {"id": "check", "type": "SHELL", "config": {"command": CHECK}, "fetchArtifacts": True, "timeoutMs": 120_000},
    ],
    "edges": [{"from": "build", "to": "check"}],
}
Fault = Callable[[Installation], Awaitable[None]]


def upload_under_way(installation: Installation) -> bool:
    """Tells whether a control plane has part of the large file."""
    folder = installation.folder / "data" / "uploads"
    sizes = [path.stat().st_size for path in folder.glob("*/*")] if folder.exists() else []
    return any(0 < size < MEGABYTES << 20 for size in sizes)


def download(installation: Installation, rest: Rest, run_id: str, name: str) -> bytes:
    request = urllib.request.Request(f"http://{installation.http}/api/runs/{run_id}/artifacts/build/{name}")
    request.add_header("Authorization", f"Bearer {rest.token}")
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return answer.read()


def names(rest: Rest, run_id: str, attempt: int = 0) -> list[str]:
    found = rest.insist("GET", f"/runs/{run_id}/steps/build/artifacts?attempt={attempt}")
    return [each["name"] for each in found["artifacts"]]


def while_uploading(folder: Path, fault: Fault, attempts: list[str], **settings: Any) -> None:
    """Does something to an installation while a step's artifacts are on their way; all is well in the end."""

    async def scenario() -> None:
        async with installed(folder, **settings) as installation:
            rest = Rest(installation.http)
            rest.sign_in()
            workflow = rest.post("/workflows", {"name": "build", "dag": DAG})
            run_id = rest.post(f"/workflows/{workflow['id']}/execute", {})["id"]
            await eventually(lambda: upload_under_way(installation))
            assert names(rest, run_id) == []
            await fault(installation)
            await eventually(lambda: rest.insist("GET", f"/runs/{run_id}")["state"] == "SUCCEEDED")
            step = rest.insist("GET", f"/runs/{run_id}/steps/build")
            assert [attempt["state"] for attempt in step["attempts"]] == attempts
            assert names(rest, run_id) == ["big", "note.txt"]
            if len(attempts) > 1:
                assert names(rest, run_id, attempt=1) == []
            big = await asyncio.to_thread(download, installation, rest, run_id, "big")
            said = rest.insist("GET", f"/runs/{run_id}/steps/check")["output"]["stdout"].split()
            assert (len(big), said[0], said[-1]) == (MEGABYTES << 20, hashlib.sha256(big).hexdigest(), "small")
            for name in (name for name in installation.parts if name.startswith("agent")):
                await eventually(lambda name=name: not any((folder / name / "artifacts").iterdir()))

    asyncio.run(scenario())


def test_the_control_plane_is_killed(tmp_path: Path) -> None:
    async def fault(installation: Installation) -> None:
        await installation.kill("controlplane")
        await installation.restart("controlplane")

    while_uploading(tmp_path, fault, ["SUCCEEDED"])


def test_the_agent_is_killed(tmp_path: Path) -> None:
    async def fault(installation: Installation) -> None:
        await installation.kill("agent-1")
        await installation.restart("agent-1")

    while_uploading(tmp_path, fault, ["LOST", "SUCCEEDED"])


def test_the_replica_that_takes_the_upload_is_gone_for_good(tmp_path: Path, private_postgres: PostgresServer) -> None:
    async def fault(installation: Installation) -> None:
        await installation.kill("controlplane")

    database = private_postgres.tcp_url(private_postgres.create_database())
    while_uploading(tmp_path, fault, ["SUCCEEDED"], replicas=2, DATABASE_URL=database)
