"""Schedules for tests of the loop, and what stands in for the look at a workflow."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rig import OWNER, Rig

from towline_controlplane.engine.firing import Refusal, planned
from towline_controlplane.frozen import replace
from towline_controlplane.ids import new_id
from towline_controlplane.loops.scheduling import Scheduling
from towline_controlplane.model import Run, WorkflowVersion
from towline_controlplane.orchestrator import RunStart
from towline_controlplane.schedule_records import Firing, Overlap, Schedule
from towline_controlplane.store import run_lists, schedules
from towline_controlplane.store.run_lists import RunFilter
from towline_controlplane.timetables import timetable_of

HOUR = 3_600_000_000


@dataclass(slots=True)
class FakeStarts:
    """Gives every schedule the version of its workflow, or what `refusals` says."""

    versions: dict[str, WorkflowVersion] = field(default_factory=dict[str, WorkflowVersion])
    refusals: dict[str, Refusal | Exception] = field(default_factory=dict[str, Refusal | Exception])

    meanwhile: Callable[[], Awaitable[object]] | None = None
    """Happens between the look and the commit."""

    async def prepare(self, schedule: Schedule, time: int) -> RunStart | Refusal:
        """Returns the run for a time."""
        if self.meanwhile is not None:
            await self.meanwhile()
        refusal = self.refusals.get(schedule.id)
        if isinstance(refusal, Exception):
            raise refusal
        return refusal or RunStart(
            workflow_id=schedule.workflow_id, version=self.versions[schedule.workflow_id], owner_id=schedule.owner_id,
            input_json=schedule.input, priority=schedule.priority, labels=dict(schedule.labels), request_id=None,
            request_digest="", schedule_id=schedule.id, scheduled_time=time,
        )  # fmt: skip


def a_schedule(now: int, workflow_id: str = "w", **values: object) -> Schedule:
    """Returns an hourly schedule, planned from `now` on."""
    plain = Schedule(
        id=new_id(), owner_id=OWNER, name="hourly", workflow_id=workflow_id, version_id=None, cron="0 * * * *",
        interval=None, time_zone="UTC", input='{"n": 1}', priority=3, labels={"team": "data"}, overlap=Overlap.SKIP,
        catch_up_window=24 * HOUR, catch_up_limit=10, jitter=0, start_time=None, end_time=None, paused=False, note="",
        revision=1, create_time=now, update_time=now,
    )  # fmt: skip
    row = replace(plain, **values)
    return planned(row, timetable_of(row), now)


@dataclass(slots=True)
class Timekeeper:
    """A control plane's loop of schedules in a rig, and what it does."""

    rig: Rig
    starts: FakeStarts = field(default_factory=FakeStarts)
    loop: Scheduling = field(init=False)

    def __post_init__(self) -> None:
        self.loop = Scheduling(self.rig.database, self.rig.orchestrator, self.starts)

    async def schedule(self, **values: object) -> Schedule:
        """Stores a schedule of a workflow with one node."""
        version = await self.rig.workflow(["a"])
        self.starts.versions[version.workflow_id] = version
        row = a_schedule(self.rig.clock(), version.workflow_id, **values)
        await self.rig.database.write(lambda tx: schedules.insert_schedule(tx, row))
        return row

    async def settle(self) -> None:
        """Ticks until nothing is left to be done now."""
        while await self.loop.tick() == 0.0:
            pass

    async def now(self, row: Schedule) -> Schedule:
        """Returns the schedule as stored."""
        found = await self.rig.database.read(lambda tx: schedules.get_schedule(tx, row.id, None))
        assert found is not None
        return found

    async def firings(self, row: Schedule) -> list[Firing]:
        """Returns what became of its times, the oldest first."""
        return (await self.rig.database.read(lambda tx: schedules.list_firings(tx, row.id, 1_000)))[::-1]

    async def runs(self, row: Schedule) -> list[Run]:
        """Returns its runs, the oldest first."""
        everything = await self.rig.database.read(lambda tx: run_lists.list_runs(tx, RunFilter(), None, 10_000))
        return [run for run in reversed(everything) if run.schedule_id == row.id]

    async def hours(self, row: Schedule) -> list[tuple[int, str]]:
        """Returns what became of its times, as hours behind the first one."""
        firings = await self.firings(row)
        first = row.next_time or 0
        return [((each.scheduled_time - first) // HOUR, each.outcome.value) for each in firings]
