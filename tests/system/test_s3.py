"""Two control planes that share a database and a bucket, but no folder."""

import asyncio
import io
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from faulty_http import Fault, FaultyHttp
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import PATIENCE_SECONDS, Installation, Rest, installed
from s3_server import ACCESS_KEY, SECRET_KEY, S3Server, new_bucket
from side_file import eventually

from towline_controlplane.composition import BLOBS_HEALTH

MANIFEST = """
name = "wide"
version = "1.0.0"
entry_point = "python:wide:run"
"""
PLUGIN = """
def run():
    print("about to be wide")
    return {"text": "x" * 400_000}
"""


def bundle() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, text in (("plugin.toml", MANIFEST), ("wide.py", PLUGIN)):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return data.getvalue()


def store(server: S3Server) -> dict[str, Any]:
    return {
        "MINIO_ENDPOINT": server.endpoint,
        "MINIO_ACCESS_KEY": ACCESS_KEY,
        "MINIO_SECRET_KEY": SECRET_KEY,
        "MINIO_BUCKET": new_bucket(),
    }


def archived_log(rest: Rest, run_id: str, node_id: str) -> dict[str, Any]:
    """Returns what is there of the log of a step's first attempt, once it is archived."""
    gives_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        log = rest.get(f"/runs/{run_id}/steps/{node_id}")["attempts"][0]["log"]
        if log["archived"]:
            return log
        assert time.monotonic() < gives_up_at, log
        time.sleep(0.1)


async def blobs_are(status: int, installation: Installation) -> None:
    """Returns once the control planes' health says so of their blobs."""
    request = health_pb2.HealthCheckRequest(service=BLOBS_HEALTH)
    for address in installation.control_planes.values():
        async with aio.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            async for response in stub.Watch(request, timeout=PATIENCE_SECONDS):
                if response.status == status:
                    break


@pytest.mark.timeout(300)
def test_replicas_share_files_through_a_bucket(tmp_path: Path, postgres_url: str, rclone: S3Server) -> None:
    settings: dict[str, Any] = {"DATABASE_URL": postgres_url, **store(rclone)}

    async def scenario() -> None:
        async with installed(tmp_path, agents=0, **settings) as installation:
            await blobs_are(health_pb2.HealthCheckResponse.SERVING, installation)
            await installation.start_control_plane("other", TOWLINE_DATA_DIR=str(tmp_path / "other-data"), **settings)
            await installation.start_agent(TOWLINE_SERVER=installation.control_planes["other"])
            rest = Rest(installation.http)
            await asyncio.to_thread(rest.sign_in)
            pushed = await asyncio.to_thread(rest.post, "/plugins", bundle())
            assert pushed["name"] == "wide", pushed
            dag = {
                "nodes": [
                    {"id": "wide", "type": "wide"},
                    {"id": "up", "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase"}},
                ],
                "edges": [{"from": "wide", "to": "up"}],
            }
            workflow = await asyncio.to_thread(rest.post, "/workflows", {"name": "w", "dag": dag})
            run = await asyncio.to_thread(rest.post, f"/workflows/{workflow['id']}/execute", {})
            events = await asyncio.to_thread(lambda: list(rest.events(run["id"])))
            assert events[-1]["type"] == "RUN_SUCCEEDED", events
            found = await asyncio.to_thread(rest.get, f"/runs/{run['id']}/steps/up")
            assert found["output"] == {"text": "X" * 400_000}
            log = await asyncio.to_thread(archived_log, rest, run["id"], "wide")
            assert (log["state"], log["verified"]) == ("COMPLETE", True)
            lines = await asyncio.to_thread(lambda: list(rest.stream(f"/runs/{run['id']}/logs?nodeId=wide")))
            assert [data["text"] for name, data in lines if name == "line"] == ["about to be wide"]
            assert lines[-1] == (
                "end",
                {"complete": True, "attempts": 1, "storedBytes": log["size"], "incomplete": []},
            )
            assert SECRET_KEY not in installation.logs()

    asyncio.run(scenario())
    assert not list(tmp_path.glob("*/blobs"))


def test_a_store_that_is_away_degrades_and_no_more(tmp_path: Path) -> None:
    nowhere: dict[str, Any] = {
        "MINIO_ENDPOINT": "127.0.0.1:1",
        "MINIO_ACCESS_KEY": ACCESS_KEY,
        "MINIO_SECRET_KEY": SECRET_KEY,
    }

    async def scenario() -> None:
        async with installed(tmp_path, **nowhere) as installation:
            await blobs_are(health_pb2.HealthCheckResponse.NOT_SERVING, installation)
            rest = Rest(installation.http)
            await asyncio.to_thread(rest.sign_in)
            dag = {"nodes": [{"id": "a", "type": "TEXT_TRANSFORM", "config": {"transform": "trim"}}]}
            workflow = await asyncio.to_thread(rest.post, "/workflows", {"name": "w", "dag": dag})
            run = await asyncio.to_thread(rest.post, f"/workflows/{workflow['id']}/execute", {"input": {"text": "a"}})
            events = await asyncio.to_thread(lambda: list(rest.events(run["id"])))
            assert events[-1]["type"] == "RUN_SUCCEEDED"
            refused = await asyncio.to_thread(rest.post, "/plugins", bundle())
            assert refused["error"]["status"] == "UNAVAILABLE", refused
            assert SECRET_KEY not in installation.logs() + str(refused)

    asyncio.run(scenario())


def test_a_store_that_answers_nobody_does_not_keep_a_control_plane_from_ending(
    tmp_path: Path, rclone: S3Server
) -> None:
    async def scenario(line: FaultyHttp) -> None:
        line.next("HEAD", *[Fault.HANG] * 1_000)
        settings: dict[str, Any] = {**store(rclone), "MINIO_ENDPOINT": line.endpoint}
        async with installed(tmp_path, agents=0, **settings):
            await eventually(lambda: "HEAD" in line.seen)  # under way, and repeated for 100 s; then it ends politely

    with FaultyHttp(rclone.address).running() as line:
        asyncio.run(scenario(line))
