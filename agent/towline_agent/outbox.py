"""Results that wait for their verdict: in memory in the order in which they came, and on disk before they are sent.

A result leaves only by a verdict, or because the control plane said that its lease is gone.
"""

import asyncio
from collections.abc import Callable

import structlog

from towline.v1.agent_service_pb2 import AttemptResult, Lease
from towline_agent.clock import Clock, Signal
from towline_agent.outcomes import invalid_output
from towline_agent.spool import ResultSpool

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

MAX_BATCH = 128
MAX_BATCH_BYTES = 2 * 1024 * 1024
"""Keeps a batch below what a gRPC server takes by default; a larger result travels alone."""
MAX_LITTER = 1000


class Outbox:
    """True while anything waits; `changed` is set when something came or went."""

    def __init__(self, spool: ResultSpool, clock: Clock) -> None:
        self.changed = Signal(clock)
        self.make_room: Callable[[], bool] = lambda: False
        """Called, in any thread, when a result does not fit on the disk; tells whether it is worth another try."""
        self._spool = spool
        self._answered: list[str] = []
        self._waiting: dict[str, AttemptResult] = spool.load()
        self._replaced: set[str] = set()
        self._one_by_one = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def leases(self) -> list[Lease]:
        """Of all that waits."""
        return [result.lease for result in self._waiting.values()]

    async def keep(self, key: str, result: AttemptResult) -> None:
        """Puts a result on disk, in the room kept for it if there is no other; else it stays in memory, and says so."""
        try:
            await asyncio.to_thread(self._put, key, result)
        except OSError as error:
            log.warning("result_not_spooled", reason=str(error))

    def _put(self, key: str, result: AttemptResult) -> None:
        try:
            self._spool.put(key, result)
        except OSError:
            if not self.make_room():
                raise
            self._spool.put(key, result)

    def add(self, key: str, result: AttemptResult) -> None:
        """Makes a result due to be sent."""
        self._waiting[key] = result
        self.changed.set()

    @property
    def settled(self) -> bool:
        """Whether nothing waits and nothing that was answered is left on disk."""
        return not self._waiting and not self._answered

    @property
    def littered(self) -> bool:
        """Whether so many files are left that removing them can no longer wait for a quiet moment."""
        return len(self._answered) > MAX_LITTER

    def drop(self, key: str) -> None:
        """Forgets a result; its file goes with the next `sweep`."""
        self._waiting.pop(key, None)
        self._replaced.discard(key)
        self._answered.append(key)
        self.changed.set()

    async def sweep(self) -> None:
        """Removes the files of forgotten results, apart from the loop: the next step must not wait for the disk."""
        answered = tuple(self._answered)
        if not answered:
            return
        try:
            await asyncio.to_thread(self._spool.remove_many, answered)
        except OSError as error:
            log.warning("result_left_on_disk", reason=str(error))
        del self._answered[: len(answered)]

    def batch(self) -> dict[str, AttemptResult]:
        """Returns the results to send next: all that wait, within the bounds of one message, at least one."""
        chosen: dict[str, AttemptResult] = {}
        size = 0
        for key, result in self._waiting.items():
            size += result.ByteSize()
            if chosen and (self._one_by_one or size > MAX_BATCH_BYTES or len(chosen) == MAX_BATCH):
                break
            chosen[key] = result
        return chosen

    def accepted(self) -> None:
        """A batch went through: the next may be full again once nothing is left of the one that did not."""
        self._one_by_one = self._one_by_one and bool(self._waiting)

    def refused(self, batch: dict[str, AttemptResult], reason: str) -> None:
        """Isolates the result that makes a message unacceptable, then reports instead that it cannot be recorded."""
        if len(batch) > 1:
            self._one_by_one = True
            return
        [(key, result)] = batch.items()
        log.error("result_refused", run=result.lease.run_id, node=result.lease.node_id, reason=reason)
        if key in self._replaced:
            self.drop(key)
            return
        substitute = invalid_output(reason)
        substitute.lease.CopyFrom(result.lease)
        self._replaced.add(key)
        self._waiting[key] = substitute
