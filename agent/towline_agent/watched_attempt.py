"""One attempt as the supervisor sees it: how long it may run, what it has used, how it is made to end.

Escalation is a ladder, climbed one rung at a time and never down: the tree is asked to stop, then killed, then its shim
is killed (it answers no more), and the supervisor clears away the rest.
"""

import json
import math
import os
import signal
import time
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from towline_agent import shim
from towline_agent.cgroups import Group
from towline_agent.execution import EndReason, Exit, Launch
from towline_agent.frozen_group import FrozenGroup
from towline_agent.frozen_tree import FrozenTree
from towline_agent.gauge import SAMPLE_SECONDS, Gauge

_FIRST_SAMPLE_SECONDS = 0.05
_SAMPLE_COST_FACTOR = 10
_SHIM_ANSWERS_SECONDS = 5.0
_LARGEST_REPORT_BYTES = 64 * 1024
_NO_STATUS = 0xFFFF  # neither exited nor signalled

Facts = dict[str, Any]
"""What the shim reported, and how it ended itself."""


class Rung(IntEnum):
    """How far the end of an attempt has been pushed."""

    RUNNING = 0
    STOPPING = 1
    KILLING = 2
    ABANDONED = 3


_RUNG_OF_LIMIT = {
    EndReason.MEMORY_LIMIT: Rung.KILLING,
    EndReason.PROCESS_LIMIT: Rung.KILLING,
    EndReason.CPU_LIMIT: Rung.STOPPING,
}
_SIGNAL_OF_RUNG = {Rung.STOPPING: shim.STOP, Rung.KILLING: shim.KILL, Rung.ABANDONED: signal.SIGKILL}


@dataclass(slots=True)
class WatchedAttempt:
    """A running attempt. All times are of the monotonic clock, in seconds."""

    launch: Launch
    shim_pid: int
    report: int
    started: float
    group: Group | None = None
    rung: Rung = Rung.RUNNING
    cause: EndReason | None = None
    """Why the supervisor ends it; None while it does not."""
    rung_due: float = 0.0
    sample_due: float = 0.0
    gauge: Gauge = field(init=False)
    frozen: FrozenTree | FrozenGroup | None = None
    frozen_at: float = 0.0
    frozen_seconds: float = 0.0
    """How long it has been frozen before: its clocks stood still."""

    def __post_init__(self) -> None:
        self.rung_due = self.started + self.launch.timeout_seconds
        self.sample_due = self.started + _FIRST_SAMPLE_SECONDS
        self.gauge = Gauge(self.launch, self.shim_pid, self.group)

    @property
    def due(self) -> float:
        """When `tick` has something to do next."""
        return min(self.rung_due, self.sample_due) if self.frozen is None else self.frozen.due

    def tick(self, now: float) -> None:
        """Does what is due: the next rung, a look at what it uses, or at whether what is frozen stands still."""
        if self.frozen is not None:
            if now >= self.frozen.due:
                self.frozen.settle(now)
            return
        if now >= self.rung_due:
            self.end(EndReason.TIMEOUT, Rung(self.rung + 1), now)
        if now >= self.sample_due:
            self._sample(now)

    def end(self, cause: EndReason, rung: Rung, now: float) -> None:
        """Pushes the attempt to a rung unless it is that far already; the first cause stands."""
        if rung <= self.rung:
            return
        frozen = self.frozen
        self._let_clocks_go_on(now)
        self.cause = self.cause or cause
        self.rung = rung
        self.rung_due = now + self._seconds_on(rung)
        os.kill(self.shim_pid, _SIGNAL_OF_RUNG[rung])
        if frozen is not None:  # a stopped process hears of SIGTERM only when it goes on
            frozen.thaw()
        if rung >= Rung.KILLING and self.group is not None:
            self.group.strike()

    def freeze(self, now: float) -> None:
        """Stops the processes where they are, and the clocks of the attempt; one that is made to end goes on ending."""
        if self.rung is Rung.RUNNING and self.frozen is None:
            by_kernel = None if self.group is None else self.group.freeze()
            self.frozen, self.frozen_at = by_kernel or FrozenTree(self.shim_pid), now
            self.frozen.settle(now)

    def thaw(self, now: float) -> None:
        """Lets a frozen attempt go on with the time that it had left."""
        frozen = self.frozen
        self._let_clocks_go_on(now)
        if frozen is not None:
            frozen.thaw()

    def _running_seconds(self, now: float) -> float:
        standing = now - self.frozen_at if self.frozen is not None else 0.0
        return now - self.started - self.frozen_seconds - standing

    def _let_clocks_go_on(self, now: float) -> None:
        if self.frozen is None:
            return
        stood = now - self.frozen_at
        self.frozen = None
        self.frozen_seconds += stood
        self.rung_due += stood
        self.sample_due += stood

    def reap(self) -> Facts:
        """Returns what was reported, once the report's other end is closed; the shim is gone after it."""
        lines = os.read(self.report, _LARGEST_REPORT_BYTES).splitlines()
        os.close(self.report)
        _, shim_status = os.waitpid(self.shim_pid, 0)
        facts: Facts = {"shimStatus": shim_status}
        for line in lines:
            facts.update(json.loads(line))
        return facts

    def clear(self) -> set[int]:
        """Kills what is still in the group, once the shim is gone; returns whom it found."""
        return set() if self.group is None else self.group.kill()

    def conclude(self, facts: Facts, now: float) -> Exit:
        """Says how the attempt ended."""
        reason, status, message = self._reason(facts)
        succeeded = reason is EndReason.EXITED and os.WIFEXITED(status) and os.WEXITSTATUS(status) == os.EX_OK
        watch = self.gauge.conclude(look_closely=not succeeded)
        return Exit(
            reason=reason,
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            peak_memory_bytes=self.gauge.peak(facts.get("peakMemoryBytes", 0)),
            cpu_seconds=facts.get("cpuSeconds", 0.0),
            elapsed_seconds=self._running_seconds(now),
            message=message,
            killed=tuple(facts.get("killed", ())),
            watch=watch,
        )

    def _reason(self, facts: Facts) -> tuple[EndReason, int, str]:
        if "spawnFailure" in facts:
            return EndReason.SPAWN_FAILED, _NO_STATUS, facts["spawnFailure"]
        if "sandboxFailure" in facts:
            return EndReason.SANDBOX_FAILED, _NO_STATUS, facts["sandboxFailure"]
        if "status" not in facts:
            return self.cause or EndReason.SIGNALED, facts["shimStatus"], "the parent of the processes was killed"
        status = facts["status"]
        return self.cause or (EndReason.EXITED if os.WIFEXITED(status) else EndReason.SIGNALED), status, ""

    def _sample(self, now: float) -> None:
        self.gauge.look(self._running_seconds(now))
        passed = self.gauge.passed()
        if passed is not None:
            self.end(passed, _RUNG_OF_LIMIT[passed], now)
        cost = time.monotonic() - now
        self.sample_due = now + max(SAMPLE_SECONDS, cost * _SAMPLE_COST_FACTOR)

    def _seconds_on(self, rung: Rung) -> float:
        match rung:
            case Rung.STOPPING:
                return self.launch.kill_grace_seconds
            case Rung.KILLING:
                return _SHIM_ANSWERS_SECONDS
            case _:
                return math.inf
