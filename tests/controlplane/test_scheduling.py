"""The loop that acts upon the times of schedules."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import OWNER, Rig, Scenario, succeeded
from schedule_samples import HOUR, Timekeeper, a_schedule
from sqlalchemy import update

from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.engine.firing import MAX_FAILURES, Refusal
from towline_controlplane.errors import InvalidArgument, Unavailable
from towline_controlplane.loops.alarm import LONGEST_WAIT_SECONDS
from towline_controlplane.loops.retention import Retention
from towline_controlplane.loops.scheduling import Scheduling
from towline_controlplane.model import RunState
from towline_controlplane.schedule_records import Origin, Outcome, Overlap
from towline_controlplane.store import run_lists, schedules, tables
from towline_controlplane.store.run_lists import RunFilter

Play = Callable[[Scenario], None]


async def finish(rig: Rig) -> None:
    agent = await rig.agent(f"agent-{rig.clock()}")
    for offer in await agent.pull():
        await agent.report(offer, succeeded("a"))


def test_a_time_is_one_run_which_knows_it(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        row = await keeper.schedule()
        assert row.next_time is not None
        rig.clock.now = row.next_time - 250_000
        assert await keeper.loop.tick() == 0.25
        assert await keeper.runs(row) == []
        rig.clock.advance(0.25)
        assert await keeper.loop.tick() == 0.0
        assert await keeper.loop.tick() == LONGEST_WAIT_SECONDS
        [run] = await keeper.runs(row)
        assert (run.schedule_id, run.scheduled_time, run.owner_id) == (row.id, row.next_time, OWNER)
        assert (run.priority, run.labels, run.input) == (3, {"team": "data"}, '{"n": 1}')
        [firing] = await keeper.firings(row)
        assert (firing.started_run_id, firing.run_state, firing.origin) == (
            run.id, RunState.PENDING, Origin.TIMETABLE,
        )  # fmt: skip
        assert (await keeper.now(row)).next_time == row.next_time + HOUR

    play(scenario)


@pytest.mark.parametrize(
    ("overlap", "at_first", "after_the_end"),
    [
        (Overlap.SKIP, ["STARTED", "SKIPPED", "SKIPPED"], ["STARTED", "SKIPPED", "SKIPPED"]),
        (Overlap.BUFFER_ONE, ["STARTED", "BUFFERED", "SKIPPED"], ["STARTED", "STARTED", "SKIPPED"]),
        (Overlap.ALLOW_ALL, ["STARTED", "STARTED", "STARTED"], ["STARTED", "STARTED", "STARTED"]),
        (Overlap.CANCEL_OTHER, ["STARTED", "STARTED", "STARTED"], ["STARTED", "STARTED", "STARTED"]),
    ],
)
def test_an_open_run_stands_in_the_way_as_the_policy_says(
    play: Play, overlap: Overlap, at_first: list[str], after_the_end: list[str]
) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        row = await keeper.schedule(overlap=overlap)
        for _ in range(3):
            rig.clock.advance(3600)
            await keeper.settle()
        assert [outcome for _, outcome in await keeper.hours(row)] == at_first
        states = [run.state for run in await keeper.runs(row)]
        if overlap is Overlap.CANCEL_OTHER:
            assert states == [RunState.CANCELLED, RunState.CANCELLED, RunState.PENDING]
        await finish(rig)
        await keeper.settle()
        assert [outcome for _, outcome in await keeper.hours(row)] == after_the_end
        scheduled = [run.scheduled_time for run in await keeper.runs(row)]
        assert len(scheduled) == len(set(scheduled)) == after_the_end.count("STARTED")

    play(scenario)


def test_the_end_of_a_run_wakes_who_waits_for_it(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper, woken = Timekeeper(rig), 0

        def wake() -> None:
            nonlocal woken
            woken += 1

        rig.orchestrator.on_schedule_free = wake
        await keeper.schedule()
        rig.clock.advance(3600)
        await keeper.settle()
        assert woken == 0
        await finish(rig)
        assert woken == 1

    play(scenario)


def test_after_an_outage_the_newest_times_are_made_up_for_in_order(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        row = await keeper.schedule(overlap=Overlap.ALLOW_ALL, catch_up_limit=3)
        rig.clock.advance(3600 * 30)
        await keeper.settle()
        assert await keeper.hours(row) == [(26, "MISSED"), (27, "STARTED"), (28, "STARTED"), (29, "STARTED")]
        assert [run.scheduled_time for run in await keeper.runs(row)] == [
            (row.next_time or 0) + hour * HOUR for hour in (27, 28, 29)
        ]

    play(scenario)


def test_a_clock_that_goes_an_hour_ahead_and_back_doubles_nothing(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        row = await keeper.schedule(cron="* * * * *", overlap=Overlap.ALLOW_ALL)
        rig.clock.advance(60)
        await keeper.settle()
        rig.clock.advance(3600)
        await keeper.settle()
        started = await keeper.runs(row)
        assert len(started) == 1 + row.catch_up_limit
        rig.clock.advance(-3600)
        for _ in range(60):
            await keeper.settle()
            rig.clock.advance(60)
        await keeper.settle()
        assert len(await keeper.runs(row)) == len(started)
        rig.clock.advance(60)
        await keeper.settle()
        times = [run.scheduled_time for run in await keeper.runs(row)]
        assert len(times) == len(set(times)) == len(started) + 1

    play(scenario)


def test_a_schedule_that_cannot_start_says_why_stops_nobody_and_rests_at_last(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        names = ("healthy", "refused", "gone", "busy")
        rows = {name: await keeper.schedule(name=name, overlap=Overlap.ALLOW_ALL) for name in names}
        keeper.starts.refusals = {
            rows["refused"].id: Refusal("INVALID_ARGUMENT", "input.n: is required"),
            rows["gone"].id: Refusal("NOT_FOUND", "there is no workflow w", final=True),
            rows["busy"].id: InvalidArgument.of("input", "gives no concurrency key"),
        }
        for _ in range(MAX_FAILURES):
            rig.clock.advance(3600)
            await keeper.settle()
        after = {name: await keeper.now(row) for name, row in rows.items()}
        assert len(await keeper.runs(rows["healthy"])) == MAX_FAILURES
        assert {name: (row.paused, row.error_code) for name, row in after.items()} == {
            "healthy": (False, ""),
            "refused": (True, "INVALID_ARGUMENT"),
            "gone": (True, "NOT_FOUND"),
            "busy": (True, "INVALID_ARGUMENT"),
        }
        assert len(await keeper.firings(rows["gone"])) == 1
        outcomes = Counter(firing.outcome for firing in await keeper.firings(rows["refused"]))
        assert outcomes == {Outcome.FAILED: MAX_FAILURES}
        assert "10 times in a row" in after["refused"].note

    play(scenario)


def test_a_defect_fails_the_time_of_one_schedule_alone(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        broken, healthy = await keeper.schedule(), await keeper.schedule()
        keeper.starts.refusals[broken.id] = RuntimeError("a defect")
        rig.clock.advance(3600)
        await keeper.settle()
        assert await keeper.hours(broken) == [(0, "FAILED")]
        assert (await keeper.now(broken)).error_code == "INTERNAL"
        assert await keeper.hours(healthy) == [(0, "STARTED")]

    play(scenario)


def test_while_the_database_is_away_nothing_is_lost_or_failed(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        row = await keeper.schedule()
        rig.clock.advance(3600)
        keeper.starts.refusals[row.id] = Unavailable("away")
        assert await keeper.loop.tick() == LONGEST_WAIT_SECONDS
        assert await keeper.firings(row) == []
        keeper.starts.refusals.clear()
        await keeper.settle()
        assert [outcome for _, outcome in await keeper.hours(row)] == ["STARTED"]

    play(scenario)


@pytest.mark.parametrize(
    "column", [{"cron": "not cron"}, {"time_zone": "Nowhere/Land"}, {"labels": "{"}, {"error_code": "x", "cron": "@x"}]
)
def test_a_row_that_cannot_be_read_is_parked_and_the_others_go_on(play: Play, column: dict[str, str]) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        poison, healthy = await keeper.schedule(), await keeper.schedule()
        broken = update(tables.schedules).where(tables.schedules.c.id == poison.id).values(column)
        await rig.database.write(lambda tx: tx.connection.execute(broken))
        rig.clock.advance(3600)
        await keeper.settle()
        assert len(await keeper.runs(healthy)) == 1
        assert await rig.database.read(schedules.next_due_time) == (healthy.next_time or 0) + HOUR
        assert await keeper.runs(poison) == []

    play(scenario)


def test_a_change_between_the_look_and_the_commit_wins(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        row = await keeper.schedule()
        rig.clock.advance(3600)
        keeper.starts.meanwhile = lambda: rig.database.write(lambda tx: schedules.delete_schedule(tx, row.id))
        assert await keeper.loop.tick() == LONGEST_WAIT_SECONDS
        assert await keeper.runs(row) == []

    play(scenario)


def test_a_crowd_of_one_owner_delays_another_by_no_round(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        mine = await keeper.schedule()
        crowd = [
            a_schedule(rig.clock(), mine.workflow_id, owner_id="crowd", overlap=Overlap.ALLOW_ALL) for _ in range(150)
        ]

        def store(tx: schedules.Transaction) -> None:
            for row in crowd:
                schedules.insert_schedule(tx, row)

        await rig.database.write(store)
        rig.clock.advance(3600)
        await keeper.loop.tick()
        assert len(await keeper.runs(mine)) == 1
        ticks = 1
        while await keeper.loop.tick() == 0.0:
            ticks += 1
        assert ticks == 3
        everything = await rig.database.read(lambda tx: run_lists.list_runs(tx, RunFilter("crowd"), None, 1_000))
        assert Counter(run.schedule_id for run in everything) == Counter(row.id for row in crowd)

    play(scenario)


def test_it_looks_by_itself_as_soon_as_it_is_woken(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper, looked = Timekeeper(rig), asyncio.Event()

        async def note() -> None:
            looked.set()

        keeper.starts.meanwhile = note
        running = asyncio.create_task(keeper.loop.run())
        try:
            await keeper.schedule()
            rig.clock.advance(3600)
            keeper.loop.alarm.wake()
            await looked.wait()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    play(scenario)


def test_many_control_planes_may_run_it(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        row = await keeper.schedule()
        others = [Scheduling(rig.database, rig.orchestrator, keeper.starts) for _ in range(4)]
        rig.clock.advance(3600)
        await asyncio.gather(*(loop.tick() for loop in (keeper.loop, *others)))
        assert len(await keeper.runs(row)) == 1

    play(scenario)


@pytest.mark.parametrize(("days", "left"), [(30, 1), (0, 2)])
def test_what_became_of_times_goes_with_its_age_or_its_schedule(
    play: Play, tmp_path: Path, days: float, left: int
) -> None:
    async def scenario(rig: Rig) -> None:
        keeper = Timekeeper(rig)
        deleted = await keeper.schedule(overlap=Overlap.ALLOW_ALL)
        kept = await keeper.schedule(cron="0 0 1 * *", overlap=Overlap.ALLOW_ALL, catch_up_window=9_000 * HOUR)
        for _ in range(2):
            rig.clock.advance(31 * 86_400)
            await keeper.settle()
        await rig.database.write(lambda tx: schedules.delete_schedule(tx, deleted.id))
        retention = Retention(rig.database, FolderBlobs(tmp_path / "blobs"), days, 24)
        gone = await retention.tick()
        assert len(await keeper.firings(kept)) == left
        assert await keeper.firings(deleted) == []
        assert gone["rows_of_schedules"] == 22 + 1 + (2 - left)

    play(scenario)
