"""Schedules for tests of the loop, and what stands in for the look at a workflow."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rig import OWNER, Rig
from sqlalchemy import select

from towline_controlplane.engine.firing import Refusal, planned
from towline_controlplane.frozen import replace
from towline_controlplane.ids import new_id
from towline_controlplane.loops.scheduling import Scheduling
from towline_controlplane.model import Run, WorkflowVersion
from towline_controlplane.orchestrator import RunStart
from towline_controlplane.schedule_records import Firing, Overlap, Schedule
from towline_controlplane.store import runs, schedules, tables, workflows
from towline_controlplane.store.database import Database, Transaction
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
        return refusal or start_of(schedule, self.versions[schedule.workflow_id], time)


@dataclass(frozen=True, slots=True)
class StoredStarts:
    """Gives every schedule the first version of its workflow, which is looked up once."""

    database: Database
    versions: dict[str, WorkflowVersion]

    async def prepare(self, schedule: Schedule, time: int) -> RunStart | Refusal:
        """Returns the run for a time."""
        if schedule.workflow_id not in self.versions:
            self.versions[schedule.workflow_id] = await self.database.read(lambda tx: _newest(tx, schedule))
        return start_of(schedule, self.versions[schedule.workflow_id], time)


def _newest(tx: Transaction, schedule: Schedule) -> WorkflowVersion:
    workflow = workflows.get_workflow(tx, schedule.workflow_id, None)
    version = workflows.get_version(tx, workflow.current_version_id) if workflow else None
    assert version is not None
    return version


def start_of(schedule: Schedule, version: WorkflowVersion, time: int) -> RunStart:
    """Returns the run of a schedule for a time."""
    return RunStart(
        workflow_id=schedule.workflow_id, version=version, owner_id=schedule.owner_id, input_json=schedule.input,
        priority=schedule.priority, labels=dict(schedule.labels), request_id=None, request_digest="",
        schedule_id=schedule.id, scheduled_time=time,
    )  # fmt: skip


async def runs_of(database: Database, schedule_id: str) -> list[Run]:
    """Returns the runs of a schedule, the oldest first."""

    def read(tx: Transaction) -> list[Run]:
        ids = select(tables.runs.c.id).where(tables.runs.c.schedule_id == schedule_id)
        in_order = ids.order_by(tables.runs.c.create_time, tables.runs.c.id)
        found = [runs.get_run(tx, run_id, None) for run_id in tx.connection.scalars(in_order).all()]
        return [run for run in found if run is not None]

    return await database.read(read)


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
        return await runs_of(self.rig.database, row.id)

    async def hours(self, row: Schedule) -> list[tuple[int, str]]:
        """Returns what became of its times, as hours behind the first one."""
        firings = await self.firings(row)
        first = row.next_time or 0
        return [((each.scheduled_time - first) // HOUR, each.outcome.value) for each in firings]
