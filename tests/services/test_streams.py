"""Following a run: every event and every line once, in order, wherever a reader goes on."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st
from service_rig import DAG, INVALID_ARGUMENT, NOT_FOUND, UPPERCASE, Caller, Rig, refusal, serve, unrolled

from towline.v1.run_pb2 import Event, LogLine, LogState
from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.log_archive import LogArchive
from towline_controlplane.loops.log_archiving import LogArchiving
from towline_controlplane.services.log_records import records
from towline_controlplane.services.open_streams import OpenStreams
from towline_controlplane.store import tables


async def _run(caller: Caller, dag: Any = DAG) -> str:
    workflow = (await caller.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow
    return (await caller.call("RunService/StartRun", workflowId=workflow.id)).run.id


async def _take(call: Any, count: int) -> list[Any]:
    taken: list[Any] = []
    async for each in unrolled(call):
        taken.append(each)
        if len(taken) == count:
            break
    return taken


def test_a_watcher_sees_the_whole_run_live_and_ends_with_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = await _run(user)
        call = user.open("RunService/WatchRun", runId=run_id)
        await call.initial_metadata()
        seen = await _take(call, 1)
        rest = asyncio.create_task(_take(call, 10_000))
        await agent.succeed_all()
        seen += await rest
        assert [each.event.sequence for each in seen] == list(range(1, len(seen) + 1))
        assert seen[0].event.type == Event.RUN_CREATED
        assert seen[-1].event.type == Event.RUN_SUCCEEDED
        assert await call.code() == grpc.StatusCode.OK
        for number, each in enumerate(seen):
            rest_again = await user.call("RunService/WatchRun", runId=run_id, cursor=each.cursor)
            assert rest_again == seen[number + 1 :]

    serve(tmp_path, scenario)


def test_a_watcher_that_missed_every_ring_still_sees_all(tmp_path: Path) -> None:
    """The poll alone carries a stream whose doorbell is broken."""

    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = await _run(user)
        rig.doorbell.ring = lambda topics: None  # type: ignore[method-assign]
        call = user.open("RunService/WatchRun", runId=run_id)
        await _take(call, 1)
        rest = asyncio.create_task(_take(call, 10_000))
        await agent.succeed_all()
        assert (await rest)[-1].event.type == Event.RUN_SUCCEEDED

    serve(tmp_path, scenario)


def test_what_happens_right_after_the_first_look_is_not_missed(tmp_path: Path) -> None:
    """Without a poll: only who listened before it looked hears the ring."""

    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = await _run(user)
        read, looks = rig.database.read, 0

        async def read_and_go_on(work: Any) -> Any:
            nonlocal looks
            found = await read(work)
            if "_read_events" in work.__qualname__:
                looks += 1
                if looks == 1:
                    await agent.succeed_all()
            return found

        rig.database.read = read_and_go_on  # type: ignore[method-assign]
        seen = await user.call("RunService/WatchRun", runId=run_id)
        assert seen[-1].event.type == Event.RUN_SUCCEEDED

    serve(tmp_path, scenario, poll_seconds=1_000.0)


def test_more_events_than_one_look_takes_come_once_each(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = await _run(user, {"nodes": [{**UPPERCASE, "id": f"n{n}"} for n in range(300)]})
        await agent.succeed_all()
        seen = [each.event.sequence for each in await user.call("RunService/WatchRun", runId=run_id)]
        assert len(seen) > 900
        assert seen == list(range(1, len(seen) + 1))

    serve(tmp_path, scenario)


async def _with_logs(rig: Rig, user: Caller) -> tuple[str, Any]:
    agent = await rig.agent()
    run_id = await _run(user, {"nodes": [UPPERCASE, {**UPPERCASE, "id": "b"}]})
    first, second = sorted(await agent.pull(), key=lambda offer: offer.step.node_id)
    await agent.log(first, 0, b"1732368000123456 O- a1\n1732368000123457 E+ a2\n")
    await agent.log(second, 0, "1732368000123458 S- b1 ü\n".encode())
    await agent.log(first, 46, b"1732368000123459 O- \n1732368000123460 O- a4 \xff\n", final=True)
    return run_id, (agent, first, second)


def _texts(lines: list[Any]) -> list[str]:
    return [each.line.text for each in lines]


def test_log_lines_are_read_and_resumed_anywhere(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        run_id, _ = await _with_logs(rig, user)
        *lines, end = await user.call("RunService/TailLogs", runId=run_id)
        assert end.end.attempts == 2
        assert [each.log.state for each in end.end.incomplete] == [LogState.GROWING] * 2
        assert _texts(lines) == ["a1", "a2", "b1 ü", "", "a4 �"]
        assert [each.line.partial for each in lines] == [False, True, False, False, False]
        assert [each.line.stream for each in lines[:3]] == [LogLine.STDOUT, LogLine.STDERR, LogLine.SYSTEM]
        assert lines[0].line.create_time.ToMicroseconds() == 1732368000123456
        for number, each in enumerate(lines):
            *rest, again = await user.call("RunService/TailLogs", runId=run_id, cursor=each.cursor)
            assert rest == lines[number + 1 :]
            assert again.end == end.end
        assert _texts(await user.call("RunService/TailLogs", runId=run_id, nodeId="b")) == ["b1 ü", ""]
        assert (await refusal(user.call("RunService/TailLogs", runId=run_id, nodeId="z"))).code == NOT_FOUND

    serve(tmp_path, scenario)


def test_a_follower_gets_lines_as_they_come_and_ends_when_all_logs_are_in(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        run_id, (agent, first, second) = await _with_logs(rig, user)
        call = user.open("RunService/TailLogs", runId=run_id, follow=True)
        assert len(await _take(call, 5)) == 5
        rest = asyncio.create_task(_take(call, 10_000))
        await agent.succeed(first, log_bytes=92)
        await agent.succeed(second, log_bytes=51)
        await agent.log(second, 26, b"1732368000123461 O- late\n", final=True)
        *lines, end = await rest
        assert _texts(lines) == ["late"]
        assert end.end.complete
        assert end.end.stored_bytes == 92 + 51
        assert await call.code() == grpc.StatusCode.OK

    serve(tmp_path, scenario)


def test_a_follower_reads_on_while_what_it_reads_is_archived(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        run_id, (agent, first, second) = await _with_logs(rig, user)
        (rig.folder / "spool").mkdir(exist_ok=True)
        archive = LogArchive(rig.database, FolderBlobs(rig.folder / "blobs"), rig.folder / "spool")
        call = user.open("RunService/TailLogs", runId=run_id, follow=True)
        seen = await _take(call, 3)
        await agent.succeed(first, log_bytes=92)
        assert await LogArchiving(rig.database, archive, 600.0).tick() == 1
        seen += await _take(call, 2)
        rest = asyncio.create_task(_take(call, 10_000))
        await agent.log(second, 26, b"1732368000123461 O- late\n", final=True)
        await agent.succeed(second, log_bytes=51)
        *lines, end = await rest
        assert _texts([*seen, *lines]) == ["a1", "a2", "b1 ü", "", "a4 �", "late"]
        assert end.end.complete
        assert await LogArchiving(rig.database, archive, 600.0).tick() == 1
        for number, each in enumerate(seen):
            again = await user.call("RunService/TailLogs", runId=run_id, cursor=each.cursor)
            assert again == [*seen[number + 1 :], *lines, end]
        step = (await user.call("RunService/GetStep", runId=run_id, nodeId="a")).step
        assert (step.attempts[0].log.state, step.attempts[0].log.archived) == (LogState.COMPLETE, True)

    serve(tmp_path, scenario)


def test_a_follower_does_not_wait_for_logs_that_never_end(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        run_id, (agent, first, second) = await _with_logs(rig, user)
        await agent.succeed(first, log_bytes=92)
        await agent.succeed(second, log_bytes=200)
        *lines, end = await user.call("RunService/TailLogs", runId=run_id, follow=True)
        assert len(lines) == 5
        assert not end.end.complete
        (late,) = end.end.incomplete
        assert (late.node_id, late.log.state, list(late.log.missing)) == (
            "b",
            LogState.ARRIVING,
            [LogState.Gap(start=26, end=200)],
        )

    serve(tmp_path, scenario, log_grace_seconds=0.2)


@pytest.mark.parametrize("name", ["RunService/WatchRun", "RunService/TailLogs"])
def test_a_wrong_cursor_is_refused(tmp_path: Path, name: str) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id, other = await _run(user), await _run(user)
        for offer in await agent.pull():
            await agent.log(offer, 0, b"1 O- x\n", final=True)
        foreign = (await _take(user.open(name, runId=other), 1))[0].cursor
        for cursor in ("nonsense", foreign, "x" * 5_000):
            refused = await refusal(user.call(name, runId=run_id, cursor=cursor))
            assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, ["cursor"])

    serve(tmp_path, scenario)


def test_streams_per_caller_are_bounded(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, other = await rig.user("ada"), await rig.user("eve")
        run_id = await _run(user)
        calls = [user.open("RunService/WatchRun", runId=run_id) for _ in range(2)]
        for call in calls:
            await call.initial_metadata()
        refused = await refusal(user.call("RunService/WatchRun", runId=run_id))
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        assert (await refusal(other.call("RunService/WatchRun", runId=run_id))).code == NOT_FOUND
        for call in calls:
            call.cancel()

    serve(tmp_path, scenario, max_streams_per_caller=2)


def test_a_stream_ends_with_the_credentials_of_its_reader(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        call = user.open("RunService/WatchRun", runId=await _run(user))
        await _take(call, 1)
        bump = tables.users.update().values(token_version=2)
        await rig.database.write(lambda tx: tx.connection.execute(bump))
        with pytest.raises(aio.AioRpcError) as caught:
            await _take(call, 10_000)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED

    serve(tmp_path, scenario, recheck_seconds=0.0)


@pytest.mark.parametrize("already_read", [0, 2])
def test_a_server_that_stops_sends_its_readers_away(tmp_path: Path, already_read: int) -> None:
    """Those that are being written to, and those that wait: a new run has two events."""

    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        call = user.open("RunService/WatchRun", runId=await _run(user))
        await call.initial_metadata()
        if already_read:
            await _take(call, already_read)
        reading = asyncio.create_task(_take(call, 10_000))
        await rig.server.stop(300)
        with pytest.raises(aio.AioRpcError) as caught:
            await reading
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "cursor" in (caught.value.details() or "")

    serve(tmp_path, scenario)


def test_a_reader_that_leaves_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        run_id = await _run(user)
        for _ in range(5):
            call = user.open("RunService/WatchRun", runId=run_id)
            await call.initial_metadata()
            call.cancel()
        async with asyncio.timeout(20):
            while rig.doorbell.listeners:  # noqa: ASYNC110
                await asyncio.sleep(0)
        call = user.open("RunService/WatchRun", runId=run_id)
        await call.initial_metadata()
        call.cancel()

    serve(tmp_path, scenario, max_streams_per_caller=5)


def test_a_cancelled_stream_is_not_taken_for_a_drained_one() -> None:
    async def scenario() -> None:
        streams = OpenStreams()
        entered = asyncio.Event()

        async def items() -> AsyncGenerator[int]:
            entered.set()
            await asyncio.Event().wait()
            yield 1

        async def read() -> None:
            async for _ in streams.relay("ada", items()):
                pass

        task = asyncio.create_task(read())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


LINES = st.lists(
    st.tuples(
        st.integers(0, 10**16 - 1),
        st.sampled_from("OES"),
        st.booleans(),
        st.text().map(lambda text: text.replace("\n", " ")),
    ),
    max_size=10,
)


@given(LINES)
def test_records_are_read_as_they_were_written(lines: list[tuple[int, str, bool, str]]) -> None:
    written = [
        f"{time} {stream}{'+' if partial else '-'} {text}\n".encode(errors="replace")
        for time, stream, partial, text in lines
    ]
    found = list(records(b"".join(written)))
    assert [(each.time, each.stream, each.partial) for each in found] == [line[:3] for line in lines]
    ends = [sum(map(len, written[: number + 1])) for number in range(len(written))]
    assert [each.end for each in found] == ends


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_records(data: bytes) -> None:
    found = list(records(data))
    assert [each.end for each in found][-1:] == ([len(data)] if data else [])
