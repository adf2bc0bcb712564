"""The control plane ends at every single thing that it does for a schedule, and each time is one run all the same."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

import pytest
from faults import Faults
from lives import Life, Stage
from rig import FakeClock
from schedule_samples import HOUR, a_schedule, runs_of

from towline_controlplane.audit.auditor import audit_runs
from towline_controlplane.engine.transitions import RUN_TERMINAL
from towline_controlplane.errors import InvalidState, Unavailable
from towline_controlplane.model import RunState, WorkflowVersion
from towline_controlplane.schedule_records import Overlap, Schedule
from towline_controlplane.store import schedules

# What becomes of the times 0 to 3; the last two come after an outage, for one of which is made up.
PLAYS: list[tuple[Overlap, Sequence[str]]] = [
    (Overlap.BUFFER_ONE, ["STARTED", "STARTED", "MISSED", "SKIPPED"]),
    (Overlap.CANCEL_OTHER, ["STARTED", "STARTED", "MISSED", "STARTED"]),
]


@pytest.mark.parametrize(("overlap", "outcomes"), PLAYS, ids=[str(overlap) for overlap, _ in PLAYS])
def test_an_exit_at_any_point_neither_loses_nor_doubles_a_time(
    stage: Stage, overlap: Overlap, outcomes: Sequence[str]
) -> None:
    async def scenario() -> int:
        version = await stage.life().rig.workflow(["a"])
        for at in itertools.count(1):
            schedule = await only_schedule(stage, version, overlap)
            if await (life := stage.life(Faults(at))).survives(play(life, schedule)):
                return at
            life = stage.life()
            assert await life.survives(play(life, schedule))
            await check(life, schedule, outcomes)
        raise AssertionError

    assert asyncio.run(scenario()) > 20


async def only_schedule(stage: Stage, version: WorkflowVersion, overlap: Overlap) -> Schedule:
    """Stores a schedule, and ends those before it."""
    clock: FakeClock = stage.clock
    clock.now += HOUR - clock.now % HOUR
    schedule = a_schedule(clock.now, version.workflow_id, overlap=overlap, catch_up_limit=1)

    def replace_all(tx: schedules.Transaction) -> None:
        for row in schedules.list_schedules(tx, None, None, 100):
            schedules.delete_schedule(tx, row.id)
        schedules.insert_schedule(tx, schedule)

    stage.life()
    await stage.database.write(replace_all)
    return schedule


async def play(life: Life, schedule: Schedule) -> None:
    """Lets four times come, the last two at once, then ends the runs; a second call goes on where the first was."""
    first, clock = schedule.next_time or 0, life.rig.clock
    for hour in (0, 1, 3):
        clock.now = max(clock.now, first + hour * HOUR)
        await settle(life)
    for _ in range(2):
        for run in await runs_of(life.rig.database, schedule.id):
            if run.state not in RUN_TERMINAL:
                await cancel(life, run.id)
        await settle(life)


async def settle(life: Life) -> None:
    for _ in range(30):
        try:
            if await life.ticks["schedules"]() != 0.0:
                return
        except Unavailable:
            continue
    raise AssertionError("there is always more to do")


async def cancel(life: Life, run_id: str) -> None:
    with contextlib.suppress(InvalidState):  # the call before had done it
        await life.rig.orchestrator.cancel(run_id, None)


async def check(life: Life, schedule: Schedule, outcomes: Sequence[str]) -> None:
    """Each time is as it is without a fault, and each run is of one of them."""
    firings = await life.rig.database.read(lambda tx: schedules.list_firings(tx, schedule.id, 100))
    first = schedule.next_time or 0
    assert [((each.scheduled_time - first) // HOUR, each.outcome) for each in reversed(firings)] == [
        *enumerate(outcomes)
    ]
    runs = await runs_of(life.rig.database, schedule.id)
    assert {run.id: run.scheduled_time for run in runs} == {
        each.started_run_id: each.scheduled_time for each in firings if each.started_run_id
    }
    assert {run.state for run in runs} == {RunState.CANCELLED}
    blueprints = life.rig.orchestrator.blueprints
    breaches = await life.rig.database.read(lambda tx: audit_runs(tx, blueprints, [run.id for run in runs]))
    assert breaches == []
