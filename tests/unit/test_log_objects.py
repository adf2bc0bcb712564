"""The form of an archived log: any tool unpacks it, and any chunk is found again with its arrival."""

import gzip
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_controlplane import log_objects
from towline_controlplane.log_objects import FRAME_BYTES, LogPacker, read_index, unread
from towline_controlplane.store.logs import LogChunk, LogPosition

KEY = ("run", "a", 1)
SOME = st.lists(st.tuples(st.integers(1, 1_000), st.binary(min_size=1, max_size=50)), min_size=1, max_size=30)


def chunks_of(pieces: list[tuple[int, bytes]]) -> list[LogChunk]:
    chunks: list[LogChunk] = []
    arrival = offset = 0
    for step, data in pieces:
        arrival += step
        chunks.append(LogChunk(arrival, 0, "a", 1, offset, data))
        offset += len(data)
    return chunks


def packed(chunks: list[LogChunk]) -> tuple[bytes, LogPacker]:
    packer = LogPacker()
    data = b"".join([*map(packer.add, chunks), packer.finish()])
    return data, packer


def unpacked(data: bytes, packer: LogPacker) -> list[LogChunk]:
    frames = read_index(data[len(data) - packer.index_size :])
    return [chunk for each in frames for chunk in each.unpack(data[each.offset : each.offset + each.length], KEY)]


@given(SOME, st.integers(1, 200))
def test_chunks_are_found_again(pieces: list[tuple[int, bytes]], frame_bytes: int) -> None:
    chunks = chunks_of(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_objects, "FRAME_BYTES", frame_bytes)
        data, packer = packed(chunks)
    whole = b"".join(chunk.data for chunk in chunks)
    assert gzip.decompress(data) == whole
    assert unpacked(data, packer) == chunks
    assert (packer.size, packer.object_size) == (len(whole), len(data))
    assert packer.content_digest == hashlib.sha256(whole).hexdigest()
    assert (packer.first_arrival, packer.last_arrival) == (chunks[0].arrival, chunks[-1].arrival)


def test_a_frame_holds_many_small_chunks_and_a_large_log_has_many_frames() -> None:
    data, packer = packed(chunks_of([(1, b"x" * 1_000)] * 2_000))
    frames = read_index(data[len(data) - packer.index_size :])
    assert [len(frame.chunks) for frame in frames] == [525, 525, 525, 425]
    assert frames[1].start == 525_000 >= FRAME_BYTES


@pytest.mark.parametrize("at", [0, 12, -5])
def test_what_is_damaged_is_not_taken(at: int) -> None:
    data, packer = packed(chunks_of([(1, b"a line of a log\n" * 9)]))
    wrong = bytearray(data[: len(data) - packer.index_size])
    wrong[at] ^= 0x55
    with pytest.raises(ValueError, match="damaged"):
        unpacked(bytes(wrong) + data[len(wrong) :], packer)


@pytest.mark.parametrize("tail", [b"", b"no index", b"\x1f\x8b\x08\x10\0\0\0\0\0\xffabcd\0\x03\0"])
def test_what_is_no_index_is_not_taken(tail: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of whichever layer
        read_index(tail)


@pytest.mark.parametrize(
    ("after", "rest"),
    [
        (None, b"12345"),
        (LogPosition(4, 99), b"12345"),
        (LogPosition(5, 0), b"12345"),
        (LogPosition(5, 3), b"45"),
        (LogPosition(5, 5), None),
        (LogPosition(6, 0), None),
    ],
)
def test_a_reader_goes_on_within_a_chunk(after: LogPosition | None, rest: bytes | None) -> None:
    left = unread(LogChunk(5, 0, "a", 1, 100, b"12345"), after)
    assert (left.data if left else None) == rest
    if left is not None:
        assert left.offset == 105 - len(left.data)
        assert left.position(len(left.data)) == LogPosition(5, 5)
