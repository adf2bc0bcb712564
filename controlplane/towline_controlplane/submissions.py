"""What waits for the committer: each submission names the rows it needs and decides on them inside the commit.

A submission either decides, answers without a decision (stale, repeated, already so), or refuses with a TowlineError;
a refusal is an answer to its sender and leaves the batch as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from towline_controlplane.artifact_records import NamedArtifact
from towline_controlplane.blueprints import Blueprint
from towline_controlplane.engine import commands
from towline_controlplane.engine.creation import RunRequest
from towline_controlplane.engine.lease import Standing, standing
from towline_controlplane.engine.rerun import failed_nodes
from towline_controlplane.engine.transitions import ATTEMPT_TERMINAL, RUN_RETRY, RUN_TERMINAL
from towline_controlplane.errors import IdempotencyKeyReused, InvalidState, NotFound, RunDeleted
from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.ledger import Ledger, Needs
from towline_controlplane.model import Attempt, AttemptState, Failure, FailureClass, Lease, Run, RunState, StepState
from towline_controlplane.store import artifacts, concurrency, runs
from towline_controlplane.store.runs import Request


class Submission(Protocol):
    """One request that changes the state of a run."""

    @property
    def needs(self) -> Needs:
        """The rows that `decide` looks at."""
        ...

    def decide(self, ledger: Ledger) -> object:
        """Applies the submission and returns the answer to its sender; raises TowlineError to refuse it."""
        ...


@dataclass(frozen=True, slots=True)
class StartRun:
    """Creates a run; with a request id only once for the same caller."""

    blueprint: Blueprint
    request: RunRequest
    request_id: str | None
    request_digest: str

    @property
    def needs(self) -> Needs:
        """Nothing exists yet but perhaps the request."""
        return Needs(request=self._key)

    def decide(self, ledger: Ledger) -> Run:
        """Returns the new run, or the one that the first request with this id created."""
        return self._started_before(ledger) or ledger.create(self.blueprint, self.request)

    def _started_before(self, ledger: Ledger) -> Run | None:
        key = self._key
        first = ledger.holder(key) if key is not None else None
        if first is None or first.run_id == self.request.run_id:
            return None
        if first.digest != self.request_digest:
            raise IdempotencyKeyReused("the idempotency key was used with another request")
        run = ledger.run(first.run_id) or runs.get_run(ledger.tx, first.run_id, self.request.owner_id)
        if run is None:
            raise RunDeleted(f"the run that this idempotency key started, {first.run_id}, has been deleted")
        return run

    @property
    def _key(self) -> Request | None:
        if not self.request_id:
            return None
        return Request(self.request.owner_id, self.request_id, self.request_digest, self.request.run_id)


@dataclass(frozen=True, slots=True)
class SteerRun:
    """Pauses, resumes or cancels a run of `owner_id` (None: of anybody)."""

    run_id: str
    owner_id: str | None
    command: commands.Pause | commands.Resume | commands.Cancel

    @property
    def needs(self) -> Needs:
        """Every open step of the run."""
        return Needs(open_runs=(self.run_id,))

    def decide(self, ledger: Ledger) -> Run:
        """Returns the run after the command; the same again if it had been given before."""
        run = _run_of(ledger, self.run_id, self.owner_id)
        if isinstance(self.command, commands.Cancel) and run.state is RunState.CANCELLED:
            return run
        if run.state in RUN_TERMINAL:
            raise InvalidState(f"the run has ended: {run.state}")
        if run.cancel_requested and not isinstance(self.command, commands.Cancel):
            raise InvalidState("the run is being cancelled")
        return ledger.decide(self.run_id, self.command)


@dataclass(frozen=True, slots=True)
class RetryRun:
    """Starts a run of `owner_id` (None: of anybody) that ended without success over from its failed steps."""

    run_id: str
    owner_id: str | None

    @property
    def needs(self) -> Needs:
        """Every step of the run."""
        return Needs(whole_runs=(self.run_id,))

    def decide(self, ledger: Ledger) -> Run:
        """Returns the run, PENDING again."""
        run = _run_of(ledger, self.run_id, self.owner_id)
        if run.state not in RUN_RETRY:
            raise InvalidState(f"only a run that ended without success can be retried; this one is {run.state}")
        if not failed_nodes(ledger.dag(run.id), ledger.steps(run.id)):
            raise InvalidState("no step of the run failed: there is nothing to run again")
        return ledger.retry(run.id)


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Deletes a run of `owner_id` (None: of anybody) that has ended."""

    run_id: str
    owner_id: str | None

    @property
    def needs(self) -> Needs:
        """The run alone."""
        return Needs(open_runs=(self.run_id,))

    def decide(self, ledger: Ledger) -> None:
        """Makes the run invisible; its rows go later."""
        run = _run_of(ledger, self.run_id, self.owner_id)
        if run.state not in RUN_TERMINAL:
            raise InvalidState(f"only a run that has ended can be deleted; this one is {run.state}: cancel it first")
        ledger.delete(run.id)


@dataclass(frozen=True, slots=True)
class TimeOutRun:
    """Stops a run that is past its deadline by the database's clock."""

    run_id: str

    @property
    def needs(self) -> Needs:
        """Every open step of the run."""
        return Needs(open_runs=(self.run_id,))

    def decide(self, ledger: Ledger) -> bool:
        """Returns False if it has ended, is being stopped, or got more time meanwhile."""
        run = ledger.run(self.run_id)
        if run is None or run.state in RUN_TERMINAL or run.cancel_requested:
            return False
        if run.deadline is None or run.deadline > ledger.tx.now:
            return False
        ledger.decide(self.run_id, commands.ReachDeadline())
        return True


@dataclass(frozen=True, slots=True)
class AdmitRun:
    """Lets a run go that waits for a slot of its concurrency limit, if one is free."""

    run_id: str

    @property
    def needs(self) -> Needs:
        """Every open step of the run."""
        return Needs(open_runs=(self.run_id,))

    def decide(self, ledger: Ledger) -> bool:
        """Returns False if it does not wait, or no slot is free."""
        run = ledger.run(self.run_id)
        if run is None or run.state in RUN_TERMINAL or run.admitted or run.concurrency_group is None:
            return False
        if not concurrency.take_slot(ledger.tx, run.concurrency_group, run.concurrency_limit, run.id):
            return False
        ledger.decide(self.run_id, commands.Admit())
        return True


@dataclass(frozen=True, slots=True)
class Confirm:
    """The holder of an offer has started its attempt."""

    lease: Lease

    @property
    def needs(self) -> Needs:
        """The step of the lease."""
        return Needs(steps=((self.lease.run_id, self.lease.node_id),))

    def decide(self, ledger: Ledger) -> bool:
        """Returns False if the lease is stale."""
        lease = self.lease
        attempt = ledger.attempt(lease.run_id, lease.node_id)
        verdict = standing(ledger.step(lease.run_id, lease.node_id), attempt, lease)
        if verdict is Standing.CURRENT and attempt is not None and attempt.state is AttemptState.OFFERED:
            ledger.decide(lease.run_id, commands.ConfirmStart(lease.node_id))
        return verdict is Standing.CURRENT


class Verdict(StrEnum):
    """What becomes of a report."""

    ACCEPTED = "ACCEPTED"
    LEASE_LOST = "LEASE_LOST"
    ALREADY_REPORTED = "ALREADY_REPORTED"


_VERDICTS: Mapping[Standing, Verdict] = {
    Standing.CURRENT: Verdict.ACCEPTED,
    Standing.REPEATED: Verdict.ACCEPTED,
    Standing.OTHER_RESULT: Verdict.ALREADY_REPORTED,
    Standing.STALE: Verdict.LEASE_LOST,
}


_NOT_STORED = Failure(
    FailureClass.TRANSIENT, "ARTIFACT_UNAVAILABLE", "artifacts that the result names are not stored any more"
)


@dataclass(frozen=True, slots=True)
class Report:
    """The holder of an attempt reports its end."""

    lease: Lease
    end: commands.EndAttempt
    artifacts: tuple[NamedArtifact, ...] = ()

    @property
    def needs(self) -> Needs:
        """The step of the lease."""
        return Needs(steps=((self.lease.run_id, self.lease.node_id),))

    def decide(self, ledger: Ledger) -> Verdict:
        """Records the result if the lease is current; a repeat is accepted and changes nothing.

        Its artifacts become visible with it. A success whose artifacts are not all stored is none.
        """
        lease = self.lease
        step, attempt = ledger.step(lease.run_id, lease.node_id), ledger.attempt(lease.run_id, lease.node_id)
        verdict = standing(step, attempt, lease, self.end.digest)
        if verdict is Standing.CURRENT:
            ledger.decide(lease.run_id, self._end_with_artifacts(ledger) if self.artifacts else self.end)
        elif verdict is Standing.STALE and attempt is not None and lease.attempt < attempt.number:
            earlier = runs.get_attempt(ledger.tx, lease.run_id, lease.node_id, lease.attempt)
            verdict = standing(step, earlier, lease, self.end.digest)
        return _VERDICTS[verdict]

    def _end_with_artifacts(self, ledger: Ledger) -> commands.EndAttempt:
        bound = artifacts.bind_many_if_stored(ledger.tx, self.lease, self.artifacts)
        end = replace(self.end, artifact_count=bound)
        if bound == len(self.artifacts) or end.outcome is not commands.Outcome.SUCCEEDED:
            return end
        return replace(
            end,
            outcome=commands.Outcome.FAILED,
            failure=_NOT_STORED,
            output=None,
            output_digest=None,
            evidence=Evidence(Cause.ARTIFACTS),
        )


@dataclass(frozen=True, slots=True)
class ExpireOffer:
    """Takes back an offer that has lapsed by the database's clock."""

    run_id: str
    node_id: str

    @property
    def needs(self) -> Needs:
        """The step in question."""
        return Needs(steps=((self.run_id, self.node_id),))

    def decide(self, ledger: Ledger) -> bool:
        """Returns False if the offer was confirmed or taken back meanwhile."""
        attempt = _open_attempt(ledger, self.run_id, self.node_id)
        if attempt is None or attempt.state is not AttemptState.OFFERED:
            return False
        if attempt.offer_expire_time > ledger.tx.now:
            return False
        ledger.decide(self.run_id, commands.ExpireOffer(self.node_id))
        return True


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Takes back an offer that was never sent, of that very epoch: for later, or with a failure for good."""

    run_id: str
    node_id: str
    epoch: int
    delay_ms: int = 0
    failure: Failure | None = None

    @property
    def needs(self) -> Needs:
        """The step in question."""
        return Needs(steps=((self.run_id, self.node_id),))

    def decide(self, ledger: Ledger) -> bool:
        """Returns False if the offer has lapsed meanwhile."""
        attempt = _open_attempt(ledger, self.run_id, self.node_id)
        if attempt is None or attempt.state is not AttemptState.OFFERED or attempt.epoch != self.epoch:
            return False
        ledger.decide(self.run_id, commands.TakeBack(self.node_id, self.delay_ms, self.failure))
        return True


@dataclass(frozen=True, slots=True)
class ExpireQueueWait:
    """Ends a READY step that no agent took in time by the database's clock."""

    run_id: str
    node_id: str

    @property
    def needs(self) -> Needs:
        """The step in question."""
        return Needs(steps=((self.run_id, self.node_id),))

    def decide(self, ledger: Ledger) -> bool:
        """Returns False if it was taken, held or given more time meanwhile."""
        step = ledger.step(self.run_id, self.node_id)
        if step is None or step.state is not StepState.READY or step.held:
            return False
        if not 0 < step.queue_deadline <= ledger.tx.now:
            return False
        ledger.decide(self.run_id, commands.ExpireQueueWait(self.node_id))
        return True


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Takes an attempt from a holder that is gone, if it still holds that very epoch.

    It counts as lost even if its start was never confirmed: the holder may have started it with its last breath, and
    an attempt that may have run is not run again under its key.
    """

    run_id: str
    node_id: str
    epoch: int
    cause: str

    @property
    def needs(self) -> Needs:
        """The step in question."""
        return Needs(steps=((self.run_id, self.node_id),))

    def decide(self, ledger: Ledger) -> bool:
        """Returns False if the attempt has moved on meanwhile."""
        attempt = _open_attempt(ledger, self.run_id, self.node_id)
        if attempt is None or attempt.epoch != self.epoch:
            return False
        ledger.decide(self.run_id, commands.LoseAttempt(self.node_id, self.cause))
        return True


def answer_if_quarantined(submission: Submission) -> object:
    """Returns what the sender of a submission hears whose run was failed because of it: nothing to be repeated."""
    if isinstance(submission, Report):
        return Verdict.LEASE_LOST
    if isinstance(submission, SteerRun | RetryRun | DeleteRun):
        return InvalidState("the run cannot be decided any more: it has failed with code INTERNAL")
    return False


def _run_of(ledger: Ledger, run_id: str, owner_id: str | None) -> Run:
    run = ledger.run(run_id)
    if run is None or owner_id not in (None, run.owner_id):
        raise NotFound(f"there is no run {run_id}")
    return run


def _open_attempt(ledger: Ledger, run_id: str, node_id: str) -> Attempt | None:
    step, attempt = ledger.step(run_id, node_id), ledger.attempt(run_id, node_id)
    held = step is not None and step.state is StepState.LEASED
    return attempt if held and attempt is not None and attempt.state not in ATTEMPT_TERMINAL else None
