"""Bugs to be found: each replaces one guard of the product for as long as it is switched on.

The product keeps none of them; here they prove that a simulation which finds nothing has looked.
"""

import zlib
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from towline_agent.attempts import Attempts
from towline_controlplane import log_writer, orchestrator, submissions
from towline_controlplane.engine import placement
from towline_controlplane.engine.lease import Standing, standing
from towline_controlplane.engine.placement import Reason
from towline_controlplane.engine.transitions import ATTEMPT_TERMINAL
from towline_controlplane.group_commit import Waiting, commit_together
from towline_controlplane.loops.offer_expiry import OfferExpiry
from towline_controlplane.model import AgentRecord, Attempt, Lease, Step, StepState
from towline_controlplane.requirements import Size
from towline_controlplane.rooms import Room
from towline_controlplane.store import agents, leases, logs, runs
from towline_controlplane.store.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: how it is switched on, and within how many seeds it must be found."""

    switch: Callable[[], AbstractContextManager[None]]
    seeds: int
    first: int = 0
    """Of those seeds: what shows a rare bug is known."""


_HOUR_US = 3_600_000_000


class _Rehearsed(Exception):
    """Ends a transaction that must leave no trace."""


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Generator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def _no_epoch_check() -> AbstractContextManager[None]:
    """Whoever names a step that somebody holds may end it."""

    def careless(
        step: Step | None, attempt: Attempt | None, lease: Lease, report_digest: str | None = None
    ) -> Standing:
        if step is None or attempt is None or attempt.state in ATTEMPT_TERMINAL or step.state is not StepState.LEASED:
            return standing(step, attempt, lease, report_digest)
        return Standing.CURRENT

    return _replaced(submissions, "standing", careless)


@contextmanager
def _ack_before_commit() -> Generator[None]:
    """Senders are answered when their batch is decided, not when it is committed."""

    async def hasty(
        database: Database,
        waiting: Sequence[Waiting[Any]],
        work: Callable[[Transaction, Sequence[Any]], tuple[Sequence[object], Any]],
        recover: Callable[[Any, Exception], Awaitable[object]] | None = None,
    ) -> list[Any]:
        answers: list[object] = []

        def rehearse(tx: Transaction) -> None:
            answers.extend(work(tx, [each.item for each in waiting])[0])
            raise _Rehearsed

        if not waiting:
            return []
        try:
            await database.write(rehearse)
        except _Rehearsed:
            for each, answer in zip(waiting, answers, strict=True):
                if not each.answer.done() and not isinstance(answer, Exception):
                    each.answer.set_result(answer)
        return await commit_together(database, waiting, work, recover)

    with _replaced(orchestrator, "commit_together", hasty), _replaced(log_writer, "commit_together", hasty):
        yield


@contextmanager
def _no_gate() -> Generator[None]:
    """Claims do not look at the time before which a step must not run."""
    lock, is_claimable = leases.lock_claimable, leases.is_claimable

    def early(tx: Transaction, *arguments: Any, **named: Any) -> Any:
        return lock(replace(tx, now=tx.now + _HOUR_US), *arguments, **named)

    def soon(step: Step, now: int) -> bool:
        return is_claimable(step, now + _HOUR_US)

    with _replaced(leases, "lock_claimable", early), _replaced(leases, "is_claimable", soon):
        yield


def _no_offer_expiry() -> AbstractContextManager[None]:
    """An offer whose answer was lost is waited for until its agent is gone."""

    async def idle(self: OfferExpiry) -> int:
        return 0

    return _replaced(OfferExpiry, "tick", idle)


def _logs_with_gaps() -> AbstractContextManager[None]:
    """Log bytes are taken as they come, whatever is missing before them or was there already."""
    append = logs.append_many

    def trusting(tx: Transaction, appends: Sequence[logs.LogAppend]) -> list[int]:
        sizes = logs.load_sizes(tx, {(each.run_id, each.node_id) for each in appends})
        ends = {key: size.size for key, size in sizes.items()}
        moved: list[logs.LogAppend] = []
        for each in appends:
            key = (each.run_id, each.node_id, each.attempt)
            moved.append(replace(each, offset=ends.get(key, 0)))
            ends[key] = ends.get(key, 0) + len(each.data)
        return append(tx, moved)

    return _replaced(logs, "append_many", trusting)


def _unordered_locks() -> AbstractContextManager[None]:
    """Runs are locked as they come."""
    lock = runs.lock_runs

    def unordered(tx: Transaction, run_ids: Collection[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for run_id in sorted(run_ids, key=lambda run_id: zlib.crc32(f"{run_id} {tx.now}".encode())):
            found |= lock(tx, [run_id])
        return found

    return _replaced(runs, "lock_runs", unordered)


def _drains_forgotten() -> AbstractContextManager[None]:
    """Agents that an admin has drained are given steps."""

    def never(agent: AgentRecord) -> list[Reason]:
        return []

    return _replaced(placement, "refuses", never)


def _freeze_in_words() -> AbstractContextManager[None]:
    """Agents say that what they hold is frozen, and let it run, with its timers."""

    def words(self: Attempts, attempt: Any, *, frozen: bool) -> None:
        (attempt.thawed.clear if frozen else attempt.thawed.set)()

    return _replaced(Attempts, "_gate", words)


@contextmanager
def _weights_not_counted() -> Generator[None]:
    """What an agent holds, and what it is given, is counted by the piece, whatever it takes."""
    lock, take = agents.lock_agents, Room.take

    def by_the_piece(tx: Transaction, agent_ids: Collection[str]) -> dict[str, agents.ListedAgent]:
        found = lock(tx, agent_ids)
        return {agent_id: replace(listed, taken=listed.running) for agent_id, listed in found.items()}

    def take_one(self: Room, size: Size) -> None:
        take(self, replace(size, weight=1))

    with _replaced(agents, "lock_agents", by_the_piece), _replaced(Room, "take", take_one):
        yield


MUTANTS: Mapping[str, Mutant] = {
    "no_epoch_check": Mutant(_no_epoch_check, 10, first=360),
    "ack_before_commit": Mutant(_ack_before_commit, 20),
    "unordered_locks": Mutant(_unordered_locks, 120),
    "no_gate": Mutant(_no_gate, 20),
    "drains_forgotten": Mutant(_drains_forgotten, 40),
    "no_offer_expiry": Mutant(_no_offer_expiry, 60),
    "logs_with_gaps": Mutant(_logs_with_gaps, 60),
    "freeze_in_words": Mutant(_freeze_in_words, 60),
    "weights_not_counted": Mutant(_weights_not_counted, 60),
}
