"""Logs on their way: gaps, repetitions, breaks, lost leases."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from running_agent import run

from towline_agent.control_plane import Unavailable
from towline_agent.execution import OutputStream
from towline_agent.holdings import lease_key
from towline_agent.log_spool import AttemptLog, LogSpool
from towline_agent.log_stream import GATHER_SECONDS, MAX_CHUNK, STALLED_SECONDS, LogStream
from towline_agent.session import Session
from towline_agent.testing import FakeClock, FakeControlPlane, make_offer


@dataclass
class Pipe:
    control_plane: FakeControlPlane
    clock: FakeClock
    stream: LogStream
    spool: LogSpool
    folder: Path

    def open(self, node: str) -> AttemptLog:
        lease = make_offer(node).lease
        log = self.spool.open(lease_key(lease), lease, 10_000_000)
        self.stream.follow(log.file)
        return log

    def files(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()]

    async def emptied(self) -> None:
        """Lets time pass until every log is with the control plane."""
        while len(self.stream):
            self.clock.advance(0.5)
            await asyncio.sleep(0)


@asynccontextmanager
async def pipe(folder: Path) -> AsyncGenerator[Pipe, None]:
    fake, clock = FakeControlPlane(), FakeClock()
    session = Session(clock, lambda: None)
    session.renewed()
    stream = LogStream(fake, session, clock)
    task = asyncio.create_task(stream.run())
    try:
        yield Pipe(fake, clock, stream, LogSpool(folder, clock), folder)
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_a_short_log_and_its_end_travel_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pipe(tmp_path) as world:
            log = world.open("a")
            log.write(OutputStream.STDOUT, b"hello\n")
            world.stream.finish(log.file)
            await world.emptied()
            [request] = world.control_plane.log_requests
            assert (request.offset, request.final) == (0, True)
            assert world.files() == []

    run(scenario)


def test_a_line_goes_out_while_the_attempt_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pipe(tmp_path) as world:
            log = world.open("a")
            log.write(OutputStream.STDOUT, b"hello\n")
            for _ in range(5):
                await asyncio.sleep(0)
            assert world.control_plane.log_requests == []
            world.clock.advance(GATHER_SECONDS)
            await world.control_plane.until(lambda: world.control_plane.logs)
            assert not world.control_plane.logs["a"].final

    run(scenario)


def test_large_logs_go_in_whole_records_of_bounded_chunks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pipe(tmp_path) as world:
            log = world.open("a")
            log.write(OutputStream.STDOUT, b"".join(b"%06d\n" % number for number in range(100_000)))
            world.stream.finish(log.file)
            expected = log.file.read(0, log.file.size)
            await world.emptied()
            assert world.control_plane.logs["a"].data == expected
            requests = world.control_plane.log_requests
            assert len(requests) > 5
            assert all(len(request.data) <= MAX_CHUNK and request.data.endswith(b"\n") for request in requests)

    run(scenario)


def test_a_gap_is_sent_again_and_what_is_known_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pipe(tmp_path) as world:
            fake = world.control_plane
            fake.log_answers = deque([0])  # the first chunk is not kept
            log = world.open("a")
            log.write(OutputStream.STDOUT, b"one\n")
            world.clock.advance(GATHER_SECONDS)
            await fake.until(lambda: len(fake.log_requests) == 1)
            log.write(OutputStream.STDOUT, b"two\n")
            world.stream.finish(log.file)
            expected = log.file.read(0, 1000)
            await world.emptied()
            assert fake.logs["a"].data == expected
            assert [request.offset for request in fake.log_requests] == [0, 0]

    run(scenario)


def test_a_control_plane_that_gets_no_further_is_not_flooded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pipe(tmp_path) as world:
            fake = world.control_plane
            fake.log_answers = deque([0] * 3)
            log = world.open("a")
            log.write(OutputStream.STDOUT, b"one\n")
            world.stream.finish(log.file)
            for expected in (1, 2, 3):
                await fake.until(lambda expected=expected: len(fake.log_requests) == expected)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                world.clock.advance(STALLED_SECONDS * 0.9)
                await asyncio.sleep(0)
                assert len(fake.log_requests) == expected
                world.clock.advance(STALLED_SECONDS)

    run(scenario)


def test_a_broken_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pipe(tmp_path) as world:
            fake = world.control_plane
            fake.lost_answers = deque(["append_logs"])
            logs = [world.open(node) for node in "ab"]
            for log in logs:
                log.write(OutputStream.STDOUT, b"one\ntwo\n")
                world.stream.finish(log.file)
            expected = [log.file.read(0, 1000) for log in logs]
            await world.emptied()
            assert [fake.logs[node].data for node in "ab"] == expected
            assert all(log.final for log in fake.logs.values())

    run(scenario)


def test_a_control_plane_that_comes_back_gets_everything(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pipe(tmp_path) as world:
            fake = world.control_plane
            fake.errors["append_logs"] = deque([Unavailable("away")] * 3)
            log = world.open("a")
            log.write(OutputStream.STDOUT, b"one\n")
            world.stream.finish(log.file)
            await world.emptied()
            assert fake.logs["a"].final

    run(scenario)


def test_a_lost_lease_ends_its_log_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pipe(tmp_path) as world:
            fake = world.control_plane
            fake.lost_leases = {"a"}
            for node in "ab":
                log = world.open(node)
                log.write(OutputStream.STDOUT, b"one\n")
                world.stream.finish(log.file)
            await world.emptied()
            assert (fake.logs["a"].data, fake.logs["b"].final) == (b"", True)
            assert world.files() == []

    run(scenario)
