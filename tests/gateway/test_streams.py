"""Server-sent events through a real HTTP server: order, resumption, refusals, and every way to leave."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import grpc
import httpx
import pytest
from gateway_fakes import (
    Context,
    control_plane,
    eventually,
    gateway,
    in_loop,
    refuse,
    served,
    streaming,
)

from towline.v1.run_pb2 import AttemptLog, Event, LogLine, LogsEnd, LogState
from towline.v1.run_service_pb2 import TailLogsResponse, WatchRunRequest, WatchRunResponse
from towline_gateway import streams

EVENTS = "/api/runs/r1/events"
Frame = dict[str, str]


def event(number: int) -> WatchRunResponse:
    return WatchRunResponse(event=Event(sequence=number, type=Event.STEP_READY), cursor=f"c{number}")


async def frames(answer: httpx.Response) -> AsyncGenerator[Frame]:
    """Splits a body into its events; a comment is the field with the empty name."""
    frame: Frame = {}
    async with aclosing(cast("AsyncGenerator[str]", answer.aiter_lines())) as lines:
        async for line in lines:
            if line:
                name, _, value = line.partition(":")
                frame[name] = value.removeprefix(" ")
            elif frame:
                yield frame
                frame = {}


async def following(request: WatchRunRequest, context: Context) -> AsyncIterator[WatchRunResponse]:
    """Streams ten events from the cursor on, then waits for ever."""
    for number in range(int(request.cursor[1:] or 0) + 1 if request.cursor else 1, 11):
        yield event(number)
    await asyncio.Event().wait()


@in_loop
async def test_each_message_is_an_event_with_its_cursor() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        fake.on["WatchRun"] = streaming(event(1), event(2))
        async with client.stream("GET", EVENTS) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            received = [frame async for frame in frames(answer)]
        assert [frame.get("event") for frame in received] == [None, "event", "event", "end"]
        assert [frame.get("id") for frame in received] == [None, "c1", "c2", None]
        data = json.loads(received[2]["data"])
        assert data == {"sequence": 2, "type": "STEP_READY", "nodeId": "", "attempt": 0}
        assert received[3]["data"] == "{}"


@in_loop
async def test_logs_take_their_parameters_and_name_their_events_line() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        line = LogLine(node_id="a", attempt=1, stream=LogLine.STDOUT, text="two\nlines and a ☃")
        fake.on["TailLogs"] = streaming(TailLogsResponse(line=line, cursor="l1"))
        async with client.stream("GET", "/api/runs/r1/logs?nodeId=a&follow=true") as answer:
            received = [frame async for frame in frames(answer)]
        assert received[1]["event"] == "line"
        assert json.loads(received[1]["data"])["text"] == "two\nlines and a ☃"
        assert (fake.call.request.node_id, fake.call.request.follow) == ("a", True)


@in_loop
async def test_messages_that_come_in_a_batch_are_an_event_each() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        batch = [TailLogsResponse(line=LogLine(text=f"{number}"), cursor=f"l{number}") for number in range(3)]
        fake.on["TailLogs"] = streaming(TailLogsResponse(batch=batch, cursor="l2"))
        async with client.stream("GET", "/api/runs/r1/logs") as answer:
            received = [frame async for frame in frames(answer)][1:]
        assert [frame.get("id") for frame in received] == ["l0", "l1", "l2", None]
        assert [json.loads(frame["data"]).get("text") for frame in received] == ["0", "1", "2", None]


@in_loop
async def test_what_is_missing_is_told_at_the_end() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        log = LogState(state=LogState.INCOMPLETE, size=9, missing=[LogState.Gap(start=4, end=9)])
        end = LogsEnd(attempts=1, incomplete=[AttemptLog(node_id="a", attempt=1, log=log)])
        fake.on["TailLogs"] = streaming(
            TailLogsResponse(line=LogLine(text="x"), cursor="l1"), TailLogsResponse(end=end)
        )
        async with client.stream("GET", "/api/runs/r1/logs") as answer:
            received = [frame async for frame in frames(answer)]
        assert [frame.get("event") for frame in received] == [None, "line", "end"]
        data = json.loads(received[2]["data"])
        assert not data["complete"]
        assert data["incomplete"][0]["log"]["state"] == "INCOMPLETE"
        assert data["incomplete"][0]["log"]["missing"] == [{"start": 4, "end": 9}]


@in_loop
async def test_last_event_id_wins_over_the_cursor_of_the_address() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        fake.on["WatchRun"] = following
        async with client.stream("GET", f"{EVENTS}?cursor=c2", headers={"Last-Event-ID": "c7"}) as answer:
            ids: list[str] = []
            async with aclosing(frames(answer)) as received:
                async for frame in received:
                    ids += [frame["id"]] if "id" in frame else []
                    if len(ids) == 3:
                        break
        assert ids == ["c8", "c9", "c10"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, 401),
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.UNAVAILABLE, 503),
    ],
)
@in_loop
async def test_a_refusal_before_the_first_event_keeps_its_status(code: grpc.StatusCode, status: int) -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):

        async def refusing(request: Any, context: Context) -> AsyncIterator[Any]:
            await refuse(context, code, "SOME_REASON")
            yield event(1)

        fake.on["WatchRun"] = refusing
        answer = await client.get(EVENTS)
        assert answer.status_code == status
        assert answer.json()["error"]["reason"] == "SOME_REASON"


@in_loop
async def test_a_control_plane_that_is_away_is_503() -> None:
    async with control_plane() as fake:
        address = fake.address
    async with served(address) as (_, client):
        assert (await client.get(EVENTS)).status_code == 503


@in_loop
async def test_a_failure_later_is_an_error_event() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):

        async def failing(request: Any, context: Context) -> AsyncIterator[Any]:
            yield event(1)
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "Not any more.")

        fake.on["WatchRun"] = failing
        async with client.stream("GET", EVENTS, headers={"X-Request-Id": "q"}) as answer:
            received = [frame async for frame in frames(answer)]
        assert [frame.get("event") for frame in received] == [None, "event", "error"]
        error = json.loads(received[2]["data"])["error"]
        assert (error["code"], error["message"], error["requestId"]) == (403, "Not any more.", "q")


def breaking_off(after: int) -> Any:
    """Streams so many events from the cursor on and goes away; of ten in all, then it ends."""

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        first = int(request.cursor[1:] or 0) + 1 if request.cursor else 1
        for number in range(first, min(first + after, 11)):
            yield event(number)
        if first + after <= 10:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "Gone.")

    return stream


@in_loop
async def test_a_stream_goes_on_elsewhere_when_its_control_plane_goes_away() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        fake.on["WatchRun"] = breaking_off(4)
        async with client.stream("GET", f"{EVENTS}?cursor=c1") as answer:
            received = [frame async for frame in frames(answer)][1:]
        assert [frame.get("id") for frame in received] == [*(f"c{number}" for number in range(2, 11)), None]
        assert received[-1]["event"] == "end"
        assert [call.request.cursor for call in fake.calls] == ["c1", "c5", "c9"]


@in_loop
async def test_a_control_plane_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RETRY_SECONDS", (0.0, 0.0))
    async with control_plane() as fake, served(fake.address) as (_, client):

        async def gone(request: Any, context: Context) -> AsyncIterator[Any]:
            if not request.cursor:
                yield event(1)
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "Gone.")

        fake.on["WatchRun"] = gone
        async with client.stream("GET", EVENTS) as answer:
            received = [frame async for frame in frames(answer)][1:]
        assert [frame["event"] for frame in received] == ["event", "error"]
        assert json.loads(received[1]["data"])["error"]["code"] == 503
        assert [call.request.cursor for call in fake.calls] == ["", "c1", "c1"]


@in_loop
async def test_an_accepted_stream_without_events_opens_at_once() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):

        async def silent(request: Any, context: Context) -> AsyncIterator[Any]:
            await context.send_initial_metadata(())
            await asyncio.Event().wait()
            yield event(1)

        fake.on["WatchRun"] = silent
        async with client.stream("GET", EVENTS) as answer:
            assert answer.status_code == 200
            async with aclosing(frames(answer)) as received:
                assert await anext(received) == {"retry": "1000"}


@in_loop
async def test_a_stream_that_is_never_accepted_is_504_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ACCEPT_SECONDS", 0.2)
    async with control_plane() as fake, served(fake.address) as (_, client):
        cancelled = asyncio.Event()

        async def hanging(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                await asyncio.Event().wait()
                yield event(1)
            finally:
                cancelled.set()

        fake.on["WatchRun"] = hanging
        assert (await client.get(EVENTS)).status_code == 504
        await cancelled.wait()


@in_loop
async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.01)
    async with control_plane() as fake, served(fake.address) as (_, client):
        proceed = asyncio.Event()

        async def slow(request: Any, context: Context) -> AsyncIterator[Any]:
            yield event(1)
            await proceed.wait()
            yield event(2)

        fake.on["WatchRun"] = slow
        async with client.stream("GET", EVENTS) as answer, aclosing(frames(answer)) as received:
            kinds: list[str] = []
            async for frame in received:
                kinds.append("comment" if "" in frame else frame.get("id", "other"))
                if kinds.count("comment") == 3:
                    proceed.set()
        assert kinds[:3] == ["other", "c1", "comment"]
        assert "c2" in kinds[5:]


@in_loop
async def test_a_reader_that_leaves_cancels_the_call() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        cancelled = asyncio.Event()

        async def endless(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                yield event(1)
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        fake.on["WatchRun"] = endless
        async with client.stream("GET", EVENTS) as answer, aclosing(frames(answer)) as received:
            await anext(received)
            await anext(received)
        async with asyncio.timeout(20):
            await cancelled.wait()


@in_loop
async def test_a_slow_reader_holds_the_control_plane_back() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        sent = 0

        async def flood(request: Any, context: Context) -> AsyncIterator[Any]:
            nonlocal sent
            for sent in range(1, 5001):
                details = Event(sequence=sent)
                details.details["text"] = "x" * 20_000
                yield WatchRunResponse(event=details, cursor=f"c{sent}")

        fake.on["WatchRun"] = flood
        async with client.stream("GET", EVENTS) as answer, aclosing(frames(answer)) as received:
            assert await anext(received)
            await _standstill(lambda: sent)
            assert 0 < sent < 5000
            ids = [frame["id"] async for frame in received if "id" in frame]
        assert ids == [f"c{number}" for number in range(1, 5001)]


async def _standstill(count: Any) -> None:
    """Returns once a counter has not moved for many turns of the loop."""
    last, same = -1, 0
    async with asyncio.timeout(20):
        while same < 100:
            await asyncio.sleep(0.002)
            last, same = count(), same + 1 if count() == last else 0


@in_loop
async def test_a_restart_of_the_gateway_loses_and_repeats_nothing() -> None:
    async with control_plane() as fake:
        fake.on["WatchRun"] = following
        ids: list[str] = []
        for wanted in (4, 10):
            async with served(fake.address) as (server, client):
                headers = {"Last-Event-ID": ids[-1]} if ids else {}
                async with (
                    client.stream("GET", EVENTS, headers=headers) as answer,
                    aclosing(frames(answer)) as received,
                ):
                    async for frame in received:
                        ids += [frame["id"]] if "id" in frame else []
                        if len(ids) == wanted:
                            break
                    await server.stop()
        assert ids == [f"c{number}" for number in range(1, 11)]


@in_loop
async def test_stopping_the_gateway_breaks_streams_off_without_an_end_event() -> None:
    async with control_plane() as fake:
        fake.on["WatchRun"] = following
        async with served(fake.address) as (server, client):
            async with client.stream("GET", EVENTS) as answer:
                received: list[Frame] = []
                async for frame in frames(answer):
                    received.append(frame)
                    if frame.get("id") == "c10":
                        server.server.stop()
            assert received[-1]["id"] == "c10"


@in_loop
async def test_head_opens_and_closes_the_stream() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        fake.on["WatchRun"] = following
        answer = await client.head(EVENTS)
        assert (answer.status_code, answer.content) == (200, b"")
        await eventually(lambda: len(fake.calls) == 1)


@in_loop
async def test_parameters_of_streams_are_checked_like_all_others() -> None:
    async with gateway() as (fake, client):
        answer = await client.get(f"{EVENTS}?since=1")
        assert answer.status_code == 400
        assert answer.json()["error"]["details"][0]["field"] == "since"
        assert fake.calls == []
