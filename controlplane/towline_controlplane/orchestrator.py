"""The one writer of run state, by group commit.

Submissions queue up while a transaction is in flight; then all that wait are applied in one, committed, answered, and
the doorbell rings. Hand-outs follow in a second transaction, so that a report's next step is in the report's own
answer. A batch that fails is applied one by one, so that a poisoned submission fails alone (I30). An answer is given
only after its commit (I8).
"""

import asyncio
import json
import random
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from towline_controlplane.blueprints import Blueprints
from towline_controlplane.bus import Doorbell, queue_topic, run_topic
from towline_controlplane.engine import commands
from towline_controlplane.engine.creation import RunRequest
from towline_controlplane.errors import TowlineError
from towline_controlplane.handouts import Claim, StepOffer, claim_many
from towline_controlplane.ids import new_id
from towline_controlplane.ledger import Changes, Ledger
from towline_controlplane.model import Lease, Run, StepState, WorkflowVersion
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.submissions import (
    Confirm,
    ExpireOffer,
    Report,
    StartRun,
    SteerRun,
    Submission,
    Verdict,
    Withdraw,
)

_MAX_BATCH = 256

log = structlog.get_logger(__name__)


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


@dataclass(frozen=True, slots=True)
class _Waiting:
    submission: Submission
    answer: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _WaitingClaim:
    claim: Claim
    answer: asyncio.Future[list[StepOffer]]


@dataclass(slots=True)
class Orchestrator:
    """Takes submissions and claims from services and loops; `run` commits them."""

    database: Database
    doorbell: Doorbell
    blueprints: Blueprints = field(default_factory=Blueprints)
    jitter: Callable[[], float] = random.random
    new_token: Callable[[], str] = secrets.token_urlsafe
    on_retry_scheduled: Callable[[], None] = lambda: None
    """Called after a commit that made a step READY for later."""
    _submissions: list[_Waiting] = field(default_factory=list[_Waiting])
    _claims: list[_WaitingClaim] = field(default_factory=list[_WaitingClaim])
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def start_run(self, start: RunStart) -> Run:
        """Creates a run, durably before it returns; the same request id and digest return the first run."""
        blueprint = await asyncio.to_thread(self.blueprints.add, start.version)
        request = RunRequest(
            run_id=new_id(),
            workflow_id=start.workflow_id,
            version_id=start.version.id,
            owner_id=start.owner_id,
            input=start.input_json,
            parsed_input=json.loads(start.input_json) if blueprint.reads_input else None,
            priority=start.priority,
            labels=start.labels,
        )
        return await self._submit(StartRun(blueprint, request, start.request_id, start.request_digest))

    async def pause(self, run_id: str, owner_id: str | None) -> Run:
        """Closes the gate of a run; raises NotFound or InvalidState."""
        return await self._submit(SteerRun(run_id, owner_id, commands.Pause()))

    async def resume(self, run_id: str, owner_id: str | None) -> Run:
        """Opens the gate of a run; raises NotFound or InvalidState."""
        return await self._submit(SteerRun(run_id, owner_id, commands.Resume()))

    async def cancel(self, run_id: str, owner_id: str | None) -> Run:
        """Ends what no agent holds and marks the rest to be stopped; raises NotFound or InvalidState."""
        return await self._submit(SteerRun(run_id, owner_id, commands.Cancel()))

    async def withdraw(self, withdrawals: Iterable[Withdraw | ExpireOffer]) -> int:
        """Takes attempts from holders that are gone; returns how many were still theirs."""
        answers = await asyncio.gather(*[self._submit(each) for each in withdrawals])
        return sum(answers)

    async def confirm(self, started: Iterable[Lease]) -> None:
        """Records the start of attempts; a stale lease changes nothing."""
        await asyncio.gather(*[self._submit(Confirm(lease)) for lease in started])

    async def exchange(
        self, started: Sequence[Lease], results: Sequence[Report], claim: Claim | None
    ) -> tuple[list[Verdict | Exception], list[StepOffer]]:
        """Confirms starts, records results and leases next steps, as one agent's message asks.

        The verdicts come in the order of the results; a result that could not be applied has its error instead. What
        the results made ready can be among the offers.
        """
        confirmed = [self._submit(Confirm(lease)) for lease in started]
        reported = [self._submit(report) for report in results]
        claimed = self._claim(claim) if claim is not None and claim.want > 0 and claim.queue_ids else None
        answers: list[Any] = await asyncio.gather(*confirmed, *reported, return_exceptions=True)
        for answer in answers[: len(confirmed)]:
            if isinstance(answer, Exception):
                raise answer
        return answers[len(confirmed) :], await claimed if claimed is not None else []

    async def run(self) -> None:
        """Commits until it is cancelled."""
        while True:
            await self._wake.wait()
            batch, self._submissions = self._submissions[:_MAX_BATCH], self._submissions[_MAX_BATCH:]
            claims, self._claims = self._claims, []
            if not self._submissions:
                self._wake.clear()
            changes = await self._commit(batch)
            await self._hand_out([each for each in claims if not each.answer.done()])
            self._announce(changes)

    def _submit(self, submission: Submission) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._submissions.append(_Waiting(submission, answer))
        self._wake.set()
        return answer

    def _claim(self, claim: Claim) -> asyncio.Future[list[StepOffer]]:
        answer: asyncio.Future[list[StepOffer]] = asyncio.get_running_loop().create_future()
        self._claims.append(_WaitingClaim(claim, answer))
        self._wake.set()
        return answer

    async def _commit(self, batch: Sequence[_Waiting]) -> list[Changes]:
        if not batch:
            return []
        try:
            answers, changes = await self.database.write(lambda tx: self._apply(tx, batch))
        except Exception as error:
            if len(batch) > 1:
                return [each for one in batch for each in await self._commit([one])]
            log.exception("submission failed", submission=type(batch[0].submission).__name__)
            _answer(batch[0].answer, error)
            return []
        for waiting, answer in zip(batch, answers, strict=True):
            _answer(waiting.answer, answer)
        return [changes]

    def _apply(self, tx: Transaction, batch: Sequence[_Waiting]) -> tuple[list[object], Changes]:
        ledger = Ledger(tx, self.blueprints, self.jitter)
        ledger.load(waiting.submission.needs for waiting in batch)
        answers = [_decide(waiting.submission, ledger) for waiting in batch]
        ledger.propagate()
        return answers, ledger.save()

    async def _hand_out(self, claims: Sequence[_WaitingClaim]) -> None:
        if not claims:
            return
        try:
            handed = await self.database.write(
                lambda tx: [claim_many(tx, each.claim, self.blueprints, self.new_token) for each in claims]
            )
        except Exception as error:
            if len(claims) > 1:
                for each in claims:
                    await self._hand_out([each])
                return
            log.exception("claim failed", agent_id=claims[0].claim.agent_id)
            _answer(claims[0].answer, error)
            return
        for waiting, offers in zip(claims, handed, strict=True):
            _answer(waiting.answer, offers)
            self.doorbell.ring({run_topic(offer.run.id) for offer in offers})

    def _announce(self, commits: Iterable[Changes]) -> None:
        for changes in commits:
            ready = [s for s in changes.steps.values() if s.state is StepState.READY and not s.held]
            self.doorbell.ring({queue_topic(step.queue_id) for step in ready if step.not_before <= changes.now})
            self.doorbell.ring({run_topic(event.run_id) for event in changes.events})
            if any(step.not_before > changes.now for step in ready):
                self.on_retry_scheduled()


def _decide(submission: Submission, ledger: Ledger) -> object:
    try:
        return submission.decide(ledger)
    except TowlineError as refusal:
        return refusal


def _answer(future: asyncio.Future[Any], answer: object) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
