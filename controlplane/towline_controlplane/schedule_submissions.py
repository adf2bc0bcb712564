"""What schedules submit to the committer: a time is acted upon in the commit that starts its run, so it gets one run.

Whoever acts upon a schedule locks it first and finds it as it was, or leaves it to whoever has changed it.
"""

from dataclasses import dataclass, replace

from towline_controlplane.engine.firing import MAX_OPEN_RUNS, Act, Decision, Refusal, decide_time
from towline_controlplane.engine.timetable import Timetable
from towline_controlplane.errors import NotFound
from towline_controlplane.ledger import Ledger, Needs
from towline_controlplane.model import Run
from towline_controlplane.schedule_records import Firing, Origin, Outcome, Schedule
from towline_controlplane.store import schedules
from towline_controlplane.submissions import StartRun


@dataclass(frozen=True, slots=True)
class Fire:
    """Does what is due at the next time of a schedule; `start` is the run of that time, or why there is none."""

    schedule: Schedule
    timetable: Timetable
    start: StartRun | Refusal | None

    @property
    def needs(self) -> Needs:
        """None but the schedule, which is locked when it is decided."""
        return Needs()

    def decide(self, ledger: Ledger) -> Act:
        """Returns what was done; NOTHING if the schedule has changed meanwhile, or another replica has it.

        CANCEL is left to the caller: the time is not acted upon before the open runs are being cancelled.
        """
        if not schedules.lock_if_unchanged(ledger.tx, self.schedule):
            return Act.NOTHING
        refusal = self.start if isinstance(self.start, Refusal) else None
        open_runs = ledger.open_runs(self.schedule.id, MAX_OPEN_RUNS)
        decision = decide_time(self.schedule, self.timetable, ledger.tx.now, open_runs, refusal)
        if decision.act is Act.START:
            return self._start(ledger, decision)
        if decision.act is Act.RECORD:
            self._record(ledger, decision, None)
        return decision.act

    def _start(self, ledger: Ledger, decision: Decision) -> Act:
        start = self.start
        if not isinstance(start, StartRun) or start.request.scheduled_time != decision.time:
            return Act.NOTHING
        if self._record(ledger, decision, start.request.run_id):
            ledger.create(start.blueprint, start.request)
        return Act.START

    def _record(self, ledger: Ledger, decision: Decision, run_id: str | None) -> bool:
        """Writes down what became of the time; False if it had a run already."""
        schedule_id, now = self.schedule.id, ledger.tx.now
        schedules.save_schedule(ledger.tx, decision.schedule)
        if missed := decision.missed:
            given_up = Firing(schedule_id, missed.last, Outcome.MISSED, Origin.TIMETABLE, None, missed.reason, now)
            schedules.record_firing(ledger.tx, given_up)
        if decision.outcome is None:
            return False
        became = Firing(schedule_id, decision.time, decision.outcome, Origin.TIMETABLE, run_id, decision.reason, now)
        return schedules.record_firing(ledger.tx, became)


@dataclass(frozen=True, slots=True)
class StartForSchedule:
    """Starts a run of a schedule beside its timetable: of a past time, or now."""

    start: StartRun
    origin: Origin

    @property
    def needs(self) -> Needs:
        """Perhaps the request."""
        return self.start.needs

    def decide(self, ledger: Ledger) -> Run | None:
        """Returns the run, or None if its time has had one before; raises NotFound if the schedule is gone."""
        request = self.start.request
        schedule_id, time = request.schedule_id or "", request.scheduled_time or 0
        if schedules.get_schedule(ledger.tx, schedule_id, None) is None:
            raise NotFound(f"there is no schedule {schedule_id}")
        now = ledger.tx.now
        firing = Firing(schedule_id, time, Outcome.STARTED, self.origin, request.run_id, "", now)
        if self.origin is Origin.BACKFILL:
            return self.start.decide(ledger) if schedules.record_firing(ledger.tx, firing) else None
        run = self.start.decide(ledger)
        while run.id == request.run_id and not schedules.record_firing(ledger.tx, firing):
            # Another run was started at the very same moment.
            firing = replace(firing, scheduled_time=firing.scheduled_time + 1)
        return run
