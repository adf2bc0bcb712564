"""Log records: what any output becomes, and what fits."""

import errno
import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from towline.v1.agent_service_pb2 import Lease
from towline_agent.execution import OutputStream
from towline_agent.log_spool import AttemptLog, LogFile, LogSpool
from towline_agent.logs import MAX_TEXT, LineSplitter
from towline_agent.testing import FakeClock

RECORD = re.compile(rb"(\d+) ([OES])([-+]) ([^\n]*)\n")
PIECES = st.lists(
    st.binary(max_size=40)
    | st.sampled_from(
        [
            b"\n",
            b"\r\n",
            "žluťoučký ".encode(),
            "𝄞".encode(),
            b"\xe2\x82",
            b"\xf0\x9f",
            b"x" * MAX_TEXT,
            "€".encode() * 30_000,
        ]
    )
)


def records_of(pieces: list[bytes]) -> bytes:
    splitter = LineSplitter(OutputStream.STDOUT, lambda: 7)
    return b"".join([*(splitter.feed(piece) for piece in pieces), splitter.finish()])


def chop(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(PIECES, st.lists(st.integers(0, 1_000_000), max_size=30))
@example([b"x" * MAX_TEXT, b"\r\n"], [MAX_TEXT, MAX_TEXT + 1])
@example(["€".encode() * 30_000], [MAX_TEXT - 1, MAX_TEXT])
def test_records_do_not_depend_on_how_the_bytes_were_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    assert records_of(chop(data, cuts)) == records_of([data])


@given(PIECES)
def test_records_are_well_formed_and_lose_nothing(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    records = records_of(pieces)
    found = RECORD.findall(records)
    assert b"".join(b"%s %s%s %s\n" % record for record in found) == records
    assert all(len(text.decode()) <= len(text) <= MAX_TEXT for _, _, _, text in found)
    lines = b"".join(text + (b"" if mark == b"+" else b"\n") for _, _, mark, text in found).decode()
    expected = data.decode(errors="replace").replace("\r\n", "\n")
    assert lines.removesuffix("\n") == expected.removesuffix("\n").removesuffix("\r")


def test_a_full_log_says_so_once_and_counts_the_rest(tmp_path: Path) -> None:
    log = open_log(tmp_path, cap=1000)
    for number in range(100):
        log.write(OutputStream.STDOUT, b"line %d\n" % number)
    log.write(OutputStream.STDERR, b"late\n")
    log.finish()
    records = RECORD.findall(log.file.read(0, 10_000))
    assert [stream for _, stream, _, _ in records].count(b"S") == 1
    assert records[-1][1] == b"S"
    assert b"limit of 1000 bytes" in records[-1][3]
    assert log.file.size <= 1000
    assert log.dropped_bytes > 0
    assert log.tail(OutputStream.STDERR).strip() == "late"


def test_a_log_without_room_for_anything_is_a_marker(tmp_path: Path) -> None:
    log = open_log(tmp_path, cap=0)
    log.write(OutputStream.STDOUT, b"hello\n")
    assert RECORD.fullmatch(log.file.read(0, 10_000))


def test_a_log_without_a_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    log = open_log(tmp_path / "gone", cap=1000)
    (tmp_path / "gone").rmdir()
    log.write(OutputStream.STDOUT, b"hello\nworld\n")
    log.write(OutputStream.STDOUT, b"more\n")
    log.finish()
    assert (log.file.size, log.dropped_bytes > 10) == (0, True)


def test_what_is_dropped_is_counted_and_what_is_kept_is_hashed(tmp_path: Path) -> None:
    log = open_log(tmp_path, cap=1_000)
    for number in range(100):
        log.write(OutputStream.STDOUT, b"line %d\n" % number)
    log.finish()
    data = log.file.read(0, 10_000)
    kept = data.count(b" O- ")
    assert data.count(b" S- ") == 1
    end = log.end()
    assert end.dropped_lines == 100 - kept > 0
    assert end.dropped_bytes == log.dropped_bytes > 0
    assert end.sha256 == hashlib.sha256(data).digest()
    assert len(data) == log.file.size <= 1_000


def test_what_a_full_disk_has_cost_is_counted_and_told_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, is_full = LogFile.append, False

    def append_if_there_is_room(self: LogFile, records: bytes) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, records)

    monkeypatch.setattr(LogFile, "append", append_if_there_is_room)
    told, untold = open_log(tmp_path / "told", cap=10_000), open_log(tmp_path / "untold", cap=10_000)
    for log in (told, untold):
        is_full = False
        log.write(OutputStream.STDOUT, b"kept\n")
        is_full = True
        log.write(OutputStream.STDOUT, b"one\ntwo\n")
        is_full = log is untold
        log.write(OutputStream.STDOUT, b"three\n")
        log.finish()
        assert log.end().dropped_lines == 3
        assert log.end().sha256 == hashlib.sha256(log.file.read(0, 10_000)).digest()
    assert [line.partition(b" ")[2] for line in untold.file.read(0, 10_000).splitlines()] == [b"O- kept"]
    lines = [line.partition(b" ")[2] for line in told.file.read(0, 10_000).splitlines()]
    assert lines == [b"O- kept", b"S- The agent had no room for the rest: 3 lines are missing"]


RAW: dict[str, tuple[list[bytes], list[bytes]]] = {
    "no line feed at the end": ([b"one\ntwo"], [b"- one", b"- two"]),
    "an empty line": ([b"\n\n"], [b"- ", b"- "]),
    "Windows": ([b"one\r\ntwo\r\n"], [b"- one", b"- two"]),
    "a progress bar": ([b"10%\r", b"20%\r", b"done\n"], [b"- 10%\r20%\rdone"]),
    "colours": ([b"\x1b[31mred\x1b[0m\n"], [b"- \x1b[31mred\x1b[0m"]),
    "NUL and bell": ([b"a\0b\a\n"], [b"- a\0b\a"]),
    "no UTF-8": ([b"a\xff\xfeb\n"], [b"- a\xef\xbf\xbd\xef\xbf\xbdb"]),
    "half a character": ([b"\xe2\x98", b"\x83\n", b"\xe2\x98"], [b"- \xe2\x98\x83", b"- \xef\xbf\xbd"]),
    "a long line": ([b"x" * MAX_TEXT + b"yz\n"], [b"+ " + b"x" * MAX_TEXT, b"- yz"]),
    "a longest line": ([b"x" * MAX_TEXT + b"\n"], [b"- " + b"x" * MAX_TEXT]),
}


@pytest.mark.parametrize("name", RAW)
def test_output_is_kept_raw_in_records(name: str) -> None:
    pieces, lines = RAW[name]
    splitter = LineSplitter(OutputStream.STDERR, lambda: 7)
    found = b"".join([*map(splitter.feed, pieces), splitter.finish()])
    assert found == b"".join(b"7 E" + line + b"\n" for line in lines)


def test_the_streams_of_an_attempt_interleave_by_whole_lines(tmp_path: Path) -> None:
    log = open_log(tmp_path, cap=10_000)
    for stream, data in (("O", b"ou"), ("E", b"er"), ("O", b"t 1\no"), ("E", b"r 1\n"), ("O", b"ut 2\n")):
        log.write(OutputStream(stream), data)
    log.finish()
    lines = log.file.read(0, 10_000).splitlines()
    assert [line.partition(b" ")[2] for line in lines] == [b"O- out 1", b"E- err 1", b"O- out 2"]


def test_a_log_costs_no_file_before_its_first_byte(tmp_path: Path) -> None:
    log = open_log(tmp_path, cap=1000)
    log.finish()
    assert list(tmp_path.iterdir()) == []
    log.note("one\nline")
    [file] = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert log.file.read(0, 1000).endswith(b"S- one line\n")


def test_reads_end_with_a_record(tmp_path: Path) -> None:
    log = open_log(tmp_path, cap=10_000)
    log.write(OutputStream.STDOUT, b"one\ntwo\n")
    first = log.file.read(0, 30)
    assert first.endswith(b"one\n")
    assert log.file.read(len(first), 1000).endswith(b"two\n")
    assert log.file.read(log.file.size, 1000) == b""


def test_a_reopened_log_ends_with_its_last_whole_record(tmp_path: Path) -> None:
    log = open_log(tmp_path, cap=10_000)
    log.write(OutputStream.STDOUT, b"one\n")
    [path] = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b"123 O- cut")
    again = LogFile.reopen(path)
    assert (again.lease, again.size) == (log.file.lease, log.file.size)
    assert again.read(0, 1000) == log.file.read(0, 1000)
    again.delete()
    assert list(tmp_path.iterdir()) == []


def open_log(folder: Path, cap: int) -> AttemptLog:
    lease = Lease(run_id="r", node_id="n", attempt=1, epoch=1, token="t")
    return LogSpool(folder, FakeClock()).open("key", lease, cap)
