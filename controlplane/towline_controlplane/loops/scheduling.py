"""Acts upon the times of schedules as they come.

What is found is decided again in the commit that acts upon it, under a lock: replicas may find the same (I18), and a
crash leaves a time either untouched or acted upon. One time of a schedule is done at a look, and a bounded number of
schedules, the owners in turn: neither a long outage nor a crowd of schedules holds up others (I32).
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from towline_controlplane.engine.firing import MAX_OPEN_RUNS, Act, Refusal, decide_time
from towline_controlplane.errors import TowlineError, Unavailable
from towline_controlplane.loops.alarm import LONGEST_WAIT_SECONDS, Alarm
from towline_controlplane.orchestrator import Orchestrator, RunStart
from towline_controlplane.schedule_records import OpenRun, Schedule
from towline_controlplane.store import schedules
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.timetables import timetable_of

_AT_ONCE = 64
_UNREADABLE = "Paused by Towline, which cannot read it any more; the log of the control plane says why"
_DEFECT = Refusal("INTERNAL", "Towline itself failed on it; the log of the control plane says how")

log = structlog.get_logger(__name__)


class Starts(Protocol):
    """Finds out what a run of a schedule would be."""

    def prepare(self, schedule: Schedule, time: int) -> Awaitable[RunStart | Refusal]:
        """Returns the run for a time, or why there can be none."""
        ...


@dataclass(frozen=True, slots=True)
class _Found:
    schedule: Schedule
    open_runs: list[OpenRun]
    now: int


@dataclass(frozen=True, slots=True)
class _Look:
    found: list[_Found]
    unreadable: dict[str, Exception]
    wait_seconds: float
    """Until the next time, if none is due."""


@dataclass(slots=True)
class Scheduling:
    """Waits for the next time; its alarm is for when an earlier one was added, or what a time waited for has ended."""

    database: Database
    orchestrator: Orchestrator
    starts: Starts
    alarm: Alarm = field(default_factory=Alarm)

    async def tick(self) -> float:
        """Acts upon one due time of each of up to a batch of schedules; returns the seconds until the next look."""
        look = await self.database.read(_look)
        for schedule_id, error in look.unreadable.items():
            log.error("a schedule cannot be read", schedule=schedule_id, exc_info=error)
            await self._park(schedule_id)
        acted = await asyncio.gather(*[self._act(each) for each in look.found])
        return 0.0 if any(acted) or look.unreadable else look.wait_seconds

    async def run(self) -> None:
        """Ticks when a time comes, at the latest every second, until it is cancelled."""
        await self.alarm.run(self.tick)

    async def _act(self, found: _Found) -> bool:
        """Returns whether anything was done; a schedule that breaks this is failed, then paused, alone (I30)."""
        try:
            return await self._fire(found)
        except Unavailable as error:
            log.warning("a schedule waits", schedule=found.schedule.id, reason=error.message)
            return False
        except TowlineError as error:
            return await self._refuse(found.schedule, Refusal(error.reason, error.message))
        except Exception:
            log.exception("a schedule failed", schedule=found.schedule.id)
            return await self._refuse(found.schedule, _DEFECT)

    async def _fire(self, found: _Found) -> bool:
        schedule = found.schedule
        timetable = timetable_of(schedule)
        decision = decide_time(schedule, timetable, found.now, found.open_runs)
        if decision.act is Act.NOTHING:
            return False
        start = await self.starts.prepare(schedule, decision.time) if decision.act is not Act.RECORD else None
        if decision.act is Act.CANCEL and isinstance(start, RunStart):
            await self._cancel(found.open_runs)
        return await self.orchestrator.fire(schedule, timetable, start) is not Act.NOTHING

    async def _cancel(self, open_runs: list[OpenRun]) -> None:
        for run in open_runs:
            try:
                await self.orchestrator.cancel(run.id, None)
            except Unavailable:
                raise
            except TowlineError as error:  # it has ended meanwhile
                log.info("a run of a schedule was not cancelled", run=run.id, reason=error.message)

    async def _refuse(self, schedule: Schedule, refusal: Refusal) -> bool:
        try:
            return await self.orchestrator.fire(schedule, timetable_of(schedule), refusal) is not Act.NOTHING
        except Unavailable:
            return False
        except Exception:
            log.exception("a schedule cannot be decided", schedule=schedule.id)
            await self._park(schedule.id)
            return True

    async def _park(self, schedule_id: str) -> None:
        await self.database.write(lambda tx: schedules.park_schedule(tx, schedule_id, _UNREADABLE))


def _look(tx: Transaction) -> _Look:
    found: list[_Found] = []
    unreadable: dict[str, Exception] = {}
    for schedule_id in dict.fromkeys([*schedules.ready_buffered(tx, _AT_ONCE), *schedules.due_many(tx, _AT_ONCE)]):
        try:
            schedule = schedules.get_schedule(tx, schedule_id, None)
        except (ValueError, TypeError) as error:  # its row holds what this release does not know
            unreadable[schedule_id] = error
            continue
        if schedule is not None:
            found.append(_Found(schedule, schedules.open_runs(tx, schedule_id, MAX_OPEN_RUNS), tx.now))
    due_time = schedules.next_due_time(tx)
    wait = LONGEST_WAIT_SECONDS if due_time is None or due_time <= tx.now else (due_time - tx.now) / 1_000_000
    return _Look(found, unreadable, min(wait, LONGEST_WAIT_SECONDS))
