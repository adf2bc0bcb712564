"""Files over HTTP: ranges, conditions and names, and what happens when one of the two ends leaves."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import grpc
import httpx
import pytest
from gateway_fakes import Context, FakeControlPlane, control_plane, eventually, gateway, in_loop, refuse, served

from towline.v1.artifact_pb2 import Artifact
from towline.v1.run_service_pb2 import DownloadArtifactResponse
from towline_gateway.ranges import ByteRange, parse_range

DATA = b"0123456789"
DIGEST = hashlib.sha256(DATA).hexdigest()
ETAG = f'"{DIGEST}"'
PATH = "/api/runs/r1/artifacts/build/report.csv"


def keep(fake: FakeControlPlane, data: bytes = DATA, name: str = "report.csv", chunk: int = 3) -> None:
    """Has the control plane serve a file as the real one does."""

    async def download(request: Any, context: Context) -> AsyncIterator[DownloadArtifactResponse]:
        digest = hashlib.sha256(data).hexdigest()
        about = Artifact(name=name, size_bytes=len(data), digest=digest, content_type="text/csv; charset=utf-8")
        yield DownloadArtifactResponse(artifact=about)
        begin = max(len(data) + request.offset, 0) if request.offset < 0 else request.offset
        end = min(begin + request.limit, len(data)) if request.limit else len(data)
        for start in range(begin, end, chunk):
            yield DownloadArtifactResponse(chunk=data[start : min(start + chunk, end)])

    fake.on["DownloadArtifact"] = download


RANGES: dict[str, tuple[int, bytes, str | None]] = {
    "bytes=0-3": (206, b"0123", "bytes 0-3/10"),
    "bytes=4-": (206, b"456789", "bytes 4-9/10"),
    "bytes=-3": (206, b"789", "bytes 7-9/10"),
    "bytes=-30": (206, DATA, "bytes 0-9/10"),
    "bytes=9-9": (206, b"9", "bytes 9-9/10"),
    "bytes=5-500": (206, b"56789", "bytes 5-9/10"),
    "BYTES=0-0": (206, b"0", "bytes 0-0/10"),
    "bytes=10-": (416, b"", "bytes */10"),
    "bytes=10-20": (416, b"", "bytes */10"),
    "bytes=-0": (416, b"", "bytes */10"),
    "bytes=0-1,5-6": (200, DATA, None),
    "bytes=3-1": (200, DATA, None),
    "bytes=a-b": (200, DATA, None),
    "bytes=-": (200, DATA, None),
    "bytes=0-" + "9" * 30: (200, DATA, None),
    "lines=0-1": (200, DATA, None),
    "": (200, DATA, None),
}


@pytest.mark.parametrize("header", RANGES)
@in_loop
async def test_ranges(header: str) -> None:
    status, body, content_range = RANGES[header]
    async with gateway() as (fake, client):
        keep(fake)
        answer = await client.get(PATH, headers={"Range": header} if header else {})
        assert answer.status_code == status
        assert answer.headers.get("content-range") == content_range
        if status != 416:
            assert answer.content == body
            assert answer.headers["content-length"] == str(len(body))
            assert answer.headers["etag"] == ETAG


@in_loop
async def test_only_the_bytes_of_the_range_are_asked_for() -> None:
    async with gateway() as (fake, client):
        keep(fake)
        await client.get(PATH, headers={"Range": "bytes=2-4"})
        assert (fake.call.request.offset, fake.call.request.limit) == (2, 3)
        assert (fake.call.request.run_id, fake.call.request.node_id, fake.call.request.name) == (
            *("r1", "build"),
            "report.csv",
        )


@in_loop
async def test_a_file_is_an_attachment_that_nothing_guesses_about() -> None:
    async with gateway() as (fake, client):
        keep(fake)
        answer = await client.get(PATH)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["content-disposition"] == (
            "attachment; filename=\"report.csv\"; filename*=UTF-8''report.csv"
        )


@pytest.mark.parametrize("name", ['a"b.txt', "ü/日本 1.txt", "a;b\r\nx: y", "%41", "..;"])
@in_loop
async def test_no_name_breaks_the_header(name: str) -> None:
    async with gateway() as (fake, client):
        keep(fake, name=name)
        answer = await client.get(PATH)
        header = answer.headers["content-disposition"]
        assert header.isascii()
        assert unquote(header.rpartition("''")[2]) == name.rpartition("/")[2]
        assert "x" not in answer.headers


CONDITIONS: dict[str, tuple[dict[str, str], int]] = {
    "the same": ({"If-None-Match": ETAG}, 304),
    "weak": ({"If-None-Match": f"W/{ETAG}"}, 304),
    "one of many": ({"If-None-Match": f'"x", {ETAG}'}, 304),
    "any": ({"If-None-Match": "*"}, 304),
    "another": ({"If-None-Match": '"x"'}, 200),
    "the same, with a range": ({"If-None-Match": ETAG, "Range": "bytes=0-1"}, 304),
    "range of the same": ({"If-Range": ETAG, "Range": "bytes=0-1"}, 206),
    "range of another": ({"If-Range": '"x"', "Range": "bytes=0-1"}, 200),
    "range of a time": ({"If-Range": "Wed, 21 Oct 2015 07:28:00 GMT", "Range": "bytes=0-1"}, 200),
    "range behind another": ({"If-Range": '"x"', "Range": "bytes=99-"}, 200),
}


@pytest.mark.parametrize("case", CONDITIONS)
@in_loop
async def test_conditions(case: str) -> None:
    headers, status = CONDITIONS[case]
    async with gateway() as (fake, client):
        keep(fake)
        answer = await client.get(PATH, headers=headers)
        assert answer.status_code == status
        assert answer.content == {200: DATA, 206: DATA[:2], 304: b""}[status]
        assert answer.headers["etag"] == ETAG


@in_loop
async def test_head_tells_of_the_whole_file() -> None:
    async with gateway() as (fake, client):
        keep(fake)
        answer = await client.head(PATH, headers={"Range": "bytes=0-1"})
        assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "10", b"")


@in_loop
async def test_an_empty_file() -> None:
    async with gateway() as (fake, client):
        keep(fake, b"")
        answer = await client.get(PATH)
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
        assert (await client.get(PATH, headers={"Range": "bytes=0-"})).status_code == 416


@pytest.mark.parametrize(
    ("path", "name"),
    [("deep/er/a.txt", "deep/er/a.txt"), ("deep%2Fa.txt", "deep/a.txt"), ("%C3%BC%20b", "ü b"), ("a//b", "a//b")],
)
@in_loop
async def test_names_may_have_slashes(path: str, name: str) -> None:
    async with gateway() as (fake, client):
        keep(fake)
        answer = await client.get(f"/api/runs/r1/artifacts/build/{path}?attempt=2")
        assert answer.status_code == 200
        assert (fake.call.request.name, fake.call.request.attempt) == (name, 2)


@pytest.mark.parametrize("query", ["offset=1", "limit=1", "name=x", "bad=1"])
@in_loop
async def test_the_query_does_not_say_which_bytes(query: str) -> None:
    async with gateway() as (fake, client):
        keep(fake)
        assert (await client.get(f"{PATH}?{query}")).status_code == 400
        assert not fake.calls


@in_loop
async def test_a_refusal_keeps_its_status() -> None:
    async def refusing(request: Any, context: Context) -> AsyncIterator[DownloadArtifactResponse]:
        await refuse(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "there is no artifact x")
        yield DownloadArtifactResponse()

    async with gateway() as (fake, client):
        fake.on["DownloadArtifact"] = refusing
        answer = await client.get(PATH)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "NOT_FOUND")


@in_loop
async def test_a_file_that_breaks_off_does_not_look_whole() -> None:
    async def breaking(request: Any, context: Context) -> AsyncIterator[DownloadArtifactResponse]:
        yield DownloadArtifactResponse(artifact=Artifact(name="a", size_bytes=10, digest=DIGEST, content_type="x/y"))
        yield DownloadArtifactResponse(chunk=b"012")

    async with control_plane() as fake, served(fake.address) as (_, client):
        fake.on["DownloadArtifact"] = breaking
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(PATH)


@in_loop
async def test_a_reader_that_leaves_ends_the_stream_of_the_control_plane() -> None:
    ended = asyncio.Event()
    sent = 0

    async def endless(request: Any, context: Context) -> AsyncIterator[DownloadArtifactResponse]:
        nonlocal sent
        try:
            about = Artifact(name="a", size_bytes=1 << 40, digest=DIGEST, content_type="x/y")
            yield DownloadArtifactResponse(artifact=about)
            while True:
                sent += 1
                yield DownloadArtifactResponse(chunk=b"x" * (256 * 1024))
        finally:
            ended.set()

    async with control_plane() as fake, served(fake.address) as (_, client):
        fake.on["DownloadArtifact"] = endless
        async with client.stream("GET", PATH) as answer:
            await anext(answer.aiter_raw())
            await eventually(lambda: sent > 3)
        await asyncio.wait_for(ended.wait(), 20)
        assert sent < 200  # a reader that does not read holds it back: no more than the buffers of the way


def test_a_range_knows_its_place() -> None:
    assert parse_range("bytes=-5") == ByteRange(None, 5)
    assert ByteRange(None, 5).within(3) == (0, 3)
    assert ByteRange(2, 4).within(3) == (2, 3)
    assert ByteRange(3, None).within(3) is None
    assert parse_range(None) is None
