"""The one writer of run state, by group commit.

All submissions and claims that wait are applied in one transaction, committed, answered (I8), and the doorbell rings.
The claims come last, so that a report's next step is in the report's own answer.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from towline_controlplane.blueprints import Blueprint, Blueprints
from towline_controlplane.bus import QUEUES_TOPIC, Doorbell, queue_topic, run_topic
from towline_controlplane.engine import commands
from towline_controlplane.engine.creation import RunRequest
from towline_controlplane.engine.firing import Act, Refusal
from towline_controlplane.engine.timetable import Timetable
from towline_controlplane.errors import InvalidArgument, TowlineError, Unavailable
from towline_controlplane.fairness import FairShares
from towline_controlplane.group_commit import Backlog, commit_together
from towline_controlplane.handouts import Served, StepOffer, first_claimable, serve
from towline_controlplane.ids import new_id
from towline_controlplane.ledger import Changes, Ledger
from towline_controlplane.matching import QueueIndex
from towline_controlplane.model import Failure, FailureClass, Lease, Run, StepState, WorkflowVersion
from towline_controlplane.rooms import Claim
from towline_controlplane.saving import Saving
from towline_controlplane.schedule_records import Origin, Schedule
from towline_controlplane.schedule_submissions import Fire, StartForSchedule
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.quarantine import fail_run
from towline_controlplane.submissions import (
    AdmitRun,
    Confirm,
    DeleteRun,
    ExpireOffer,
    ExpireQueueWait,
    Report,
    RetryRun,
    StartRun,
    SteerRun,
    Submission,
    TakeBack,
    TimeOutRun,
    Verdict,
    Withdraw,
    answer_if_quarantined,
)
from towline_controlplane.tokens import new_lease_token
from towline_controlplane.views import Views
from towline_dag.expressions import ExpressionError, Scope, run_in_scope

_MAX_BATCH = 256

log = structlog.get_logger(__name__)

Finding = Withdraw | ExpireOffer | ExpireQueueWait | TakeBack | TimeOutRun | AdmitRun
"""What duties look for. Each is judged again inside the commit, so that several replicas may find the same (I18)."""


@dataclass(frozen=True, slots=True)
class RunStart:
    """What a user starts a run with; `input_json` has been checked."""

    workflow_id: str
    version: WorkflowVersion
    owner_id: str
    input_json: str
    priority: int
    labels: dict[str, str]
    request_id: str | None
    request_digest: str
    schedule_id: str | None = None
    scheduled_time: int | None = None
    """As in Run."""


@dataclass(slots=True)
class Orchestrator:
    """Takes submissions and claims from services and loops; `run` commits them."""

    database: Database
    doorbell: Doorbell
    blueprints: Blueprints = field(default_factory=Blueprints)
    jitter: Callable[[], float] = random.random
    new_token: Callable[[], str] = new_lease_token
    new_id: Callable[[], str] = new_id
    on_retry_scheduled: Callable[[], None] = lambda: None
    """Called after a commit that made a step READY for later."""
    on_slots_changed: Callable[[], None] = lambda: None
    """Called after a commit that freed a slot of a concurrency limit, or made a run wait for one."""
    on_schedule_free: Callable[[], None] = lambda: None
    """Called after a commit that ended a run of a schedule, for which another time of it may wait."""
    saving: Saving = field(default_factory=Saving)
    queues: QueueIndex = field(init=False)
    _shares: FairShares = field(default_factory=FairShares)
    _views: Views = field(default_factory=Views)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _submissions: Backlog[Submission] = field(init=False)
    _claims: Backlog[Claim] = field(init=False)

    def __post_init__(self) -> None:
        self.queues = QueueIndex(self.database, self.doorbell)
        self._submissions = Backlog(self._wake)
        self._claims = Backlog(self._wake)

    async def start_run(self, start: RunStart) -> Run:
        """Creates a run, durably before it returns; the same request id and digest return the first run."""
        return await self._submissions.add(await self._new_run(start))

    async def fire(self, schedule: Schedule, timetable: Timetable, start: RunStart | Refusal | None) -> Act:
        """Does what is due at the next time of a schedule; NOTHING if it is not as given any more.

        `start` is the run of that time; without one, only what needs none is done.
        """
        new_run = await self._new_run(start) if isinstance(start, RunStart) else start
        return await self._submissions.add(Fire(schedule, timetable, new_run))

    async def start_for_schedule(self, start: RunStart, origin: Origin) -> Run | None:
        """Creates a run of a schedule beside its timetable; None if its time has a run. Raises NotFound."""
        return await self._submissions.add(StartForSchedule(await self._new_run(start), origin))

    async def pause(self, run_id: str, owner_id: str | None, *, freeze: bool = False) -> Run:
        """Closes the gate of a run, and lets what runs stand still or go on; raises NotFound or InvalidState."""
        return await self._submissions.add(SteerRun(run_id, owner_id, commands.Pause(freeze)))

    async def resume(self, run_id: str, owner_id: str | None) -> Run:
        """Opens the gate of a run; raises NotFound or InvalidState."""
        return await self._submissions.add(SteerRun(run_id, owner_id, commands.Resume()))

    async def cancel(self, run_id: str, owner_id: str | None) -> Run:
        """Ends what no agent holds and marks the rest to be stopped; raises NotFound or InvalidState."""
        return await self._submissions.add(SteerRun(run_id, owner_id, commands.Cancel()))

    async def retry(self, run_id: str, owner_id: str | None) -> Run:
        """Starts a run that did not succeed over from its failed steps; raises NotFound or InvalidState."""
        return await self._submissions.add(RetryRun(run_id, owner_id))

    async def delete(self, run_id: str, owner_id: str | None) -> None:
        """Makes a run that has ended invisible; raises NotFound or InvalidState."""
        await self._submissions.add(DeleteRun(run_id, owner_id))

    async def settle(self, findings: Iterable[Finding]) -> int:
        """Acts on what a duty has found, as far as it still holds; returns of how many it did."""
        answers = await asyncio.gather(*[self._submissions.add(each) for each in findings])
        return sum(answers)

    async def confirm(self, started: Iterable[Lease]) -> None:
        """Records the start of attempts; a stale lease changes nothing."""
        await asyncio.gather(*[self._submissions.add(Confirm(lease)) for lease in started])

    async def exchange(
        self, started: Sequence[Lease], results: Sequence[Report], claim: Claim | None
    ) -> tuple[list[Verdict | Exception], Served]:
        """Confirms starts, records results and leases next steps, as one agent's message asks.

        The verdicts come in the order of the results; a result that could not be applied has its error instead. What
        the results made ready can be among the offers.
        """
        confirmed = [self._submissions.add(Confirm(lease)) for lease in started]
        reported = [self._submissions.add(report) for report in results]
        claimed = [self._claims.add(claim)] if claim is not None and claim.want > 0 and claim.queue_ids else []
        answers: list[Any] = await asyncio.gather(*confirmed, *reported, *claimed, return_exceptions=True)
        served: Any = answers.pop() if claimed else _nothing(claim)
        for answer in (*answers[: len(confirmed)], served):
            if isinstance(answer, Exception):
                raise answer
        return answers[len(confirmed) :], served

    async def run(self) -> None:
        """Commits until it is cancelled."""
        while True:
            await self._wake.wait()
            batch, claims = self._submissions.take(_MAX_BATCH), self._claims.take(_MAX_BATCH)
            if not self._submissions and not self._claims:
                self._wake.clear()
            commits = await commit_together(self.database, [*batch, *claims], self._apply, self._recover)
            for changes in commits:
                self._views.keep(changes.views)
            self._announce(commits)

    async def quarantine(self, run_id: str, error: Exception) -> bool:
        """Fails a run that breaks whatever touches it, so that the others go on (I30); False if it is not open."""
        failure = Failure(
            FailureClass.PERMANENT,
            "INTERNAL",
            "Towline itself failed on this run; the log of the control plane says how",
            type(error).__name__,
        )
        log.error("run_quarantined", run=run_id, exc_info=error)
        failed = await self.database.write(lambda tx: fail_run(tx, run_id, failure))
        self.doorbell.ring([run_topic(run_id)])
        self.on_slots_changed()
        return failed

    async def _new_run(self, start: RunStart) -> StartRun:
        blueprint = await asyncio.to_thread(self.blueprints.add, start.version)
        await self.queues.ensure(blueprint.queues)
        run_id = self.new_id()
        parsed_input = json.loads(start.input_json) if blueprint.reads_input else None
        request = RunRequest(
            run_id=run_id,
            workflow_id=start.workflow_id,
            version_id=start.version.id,
            owner_id=start.owner_id,
            input=start.input_json,
            parsed_input=parsed_input,
            priority=start.priority,
            labels=start.labels,
            concurrency_group=_group(blueprint, start, run_id, parsed_input),
            schedule_id=start.schedule_id,
            scheduled_time=start.scheduled_time,
        )
        return StartRun(blueprint, request, start.request_id, start.request_digest)

    async def _recover(self, item: Submission | Claim, error: Exception) -> object:
        if isinstance(item, Claim):
            return await self._serve_one_by_one(item)
        run_ids = item.needs.run_ids
        if not run_ids:
            return error
        for run_id in sorted(run_ids):
            await self.quarantine(run_id, error)
        return answer_if_quarantined(item)

    async def _serve_one_by_one(self, claim: Claim) -> Served:
        """Hands out around the runs that break the claim, which are quarantined."""
        offers: list[StepOffer] = []
        suspects: list[str] = []
        taken = 0
        while taken < claim.want:
            suspects.clear()
            rest = replace(claim, want=claim.want - taken)
            try:
                served = await self.database.write(partial(self._serve_first, rest, suspects))
            except Unavailable:
                break
            except Exception as error:
                if not suspects or not await self.quarantine(suspects[0], error):
                    raise
                continue
            if not served.offers:
                return replace(served, offers=offers, room=taken + served.room)
            self.doorbell.ring(run_topic(offer.run.id) for offer in served.offers)
            offers += served.offers
            taken += sum(offer.attempt.weight for offer in served.offers)
        return Served(offers, taken, found_end=False)

    def _serve_first(self, claim: Claim, suspects: list[str], tx: Transaction) -> Served:
        """Leases one step; `suspects` then names its run, whatever becomes of it."""
        ledger = self._ledger(tx)
        suspects.extend(run_id for run_id, _ in first_claimable(ledger, claim, self.saving))
        (served,) = serve(ledger, [claim], self.new_token, lambda: 0.0, self.saving, most=1)
        ledger.save()
        return served

    def _ledger(self, tx: Transaction) -> Ledger:
        return Ledger(tx, self.blueprints, self._shares, self._views, self.jitter)

    def _apply(self, tx: Transaction, items: Sequence[Submission | Claim]) -> tuple[list[object], Changes]:
        claims = [item for item in items if isinstance(item, Claim)]
        batch = [item for item in items if not isinstance(item, Claim)]
        ledger = self._ledger(tx)
        ledger.load(submission.needs for submission in batch)
        answers = [_decide(submission, ledger) for submission in batch]
        ledger.propagate()
        offers = serve(ledger, claims, self.new_token, self.jitter, self.saving)
        ledger.save()
        return [*answers, *offers], ledger.close()

    def _announce(self, commits: Iterable[Changes]) -> None:
        """Rings for what is new; what was handed out at once needs nobody else."""
        due: Counter[str] = Counter()
        for changes in commits:
            ready = [s for s in changes.steps.values() if s.state is StepState.READY and not s.held]
            due.update(queue_topic(step.queue_id) for step in ready if step.not_before <= changes.now)
            self.doorbell.ring(run_topic(run_id) for run_id in changes.runs)
            if any(step.not_before > changes.now for step in ready):
                self.on_retry_scheduled()
            if changes.admits:
                self.on_slots_changed()
            if not self.queues.knows(changes.queue_ids):
                self.doorbell.ring([QUEUES_TOPIC])
            if changes.frees_schedule:
                self.on_schedule_free()
        self.doorbell.ring_in_turn(due)


def _nothing(claim: Claim | None) -> Served:
    want = claim.want if claim is not None else 0
    return Served((), want, found_end=want > 0)


def _group(blueprint: Blueprint, start: RunStart, run_id: str, parsed_input: object) -> str | None:
    limit = blueprint.dag.policies.concurrency
    if limit is None:
        return None
    run = run_in_scope(run_id, blueprint.workflow_id, start.scheduled_time)
    try:
        return limit.group(blueprint.workflow_id, Scope(input=parsed_input, run=run, nodes={}))
    except ExpressionError as error:
        raise InvalidArgument.of("input", f"gives no concurrency key: {error}") from None


def _decide(submission: Submission, ledger: Ledger) -> object:
    try:
        return submission.decide(ledger)
    except TowlineError as refusal:
        return refusal
