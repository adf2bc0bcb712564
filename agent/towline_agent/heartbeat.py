"""What renews the leases: what each Sync says, what its answer means, and when the leases must be taken for lost.

It loses its race when no Sync is accepted in time. Then, before the control plane can give the steps to another agent,
it tells the loop to kill everything that runs (self-fencing), judged by elapsed time counted from the sending of the
last good request. A process that was stopped and continued finds the fence before it sends anything. It makes no call
and waits for nothing itself: `pulse.py` does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from towline.v1.agent_pb2 import AgentInfo
from towline.v1.agent_service_pb2 import HeldAttempt, SyncRequest, SyncResponse
from towline_agent.clock import Backoff, Clock
from towline_agent.control_plane import AgentMustStop, ControlPlaneError, IdentityInUse, SessionReplaced, SessionUnknown
from towline_agent.session import Ended, Fenced, Notice, Renewed

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

MARGIN_SHARE = 1 / 6
"""Part of the lease kept back for killing what runs."""
MAX_INTERVAL_SHARE = 1 / 3
"""Two renewals may fail before a lease is in danger, whatever interval the server names."""
SHORTEST_INTERVAL_SECONDS = 0.05
CALL_SECONDS = 5.0
SHORTEST_CALL_SECONDS = 0.2


@dataclass(slots=True)
class LeaseClock:
    """When the leases must be taken for lost; nothing is held before the first renewal."""

    fence_at: float | None = None
    fenced: bool = True

    def renew(self, sent_at: float, lease_seconds: float) -> None:
        """The leases hold for `lease_seconds` from the moment the request was sent."""
        self.fence_at = sent_at + lease_seconds * (1 - MARGIN_SHARE)
        self.fenced = False

    def remaining(self, now: float) -> float | None:
        """Seconds until the fence; None if there is nothing to lose."""
        return None if self.fenced or self.fence_at is None else self.fence_at - now


@dataclass(frozen=True, slots=True)
class Beat:
    """One Sync to make."""

    request: SyncRequest
    timeout_seconds: float
    sent_at: float
    held: frozenset[str]
    """Keys of the attempts that it names."""


class Heartbeat:
    """One Sync after the other: `begin` says what to send, `conclude` takes what came of it. Belongs to its pulse."""

    def __init__(
        self,
        session_id: str,
        info: AgentInfo,
        snapshot: Callable[[], dict[str, HeldAttempt]],
        deliver: Callable[[Notice], object],
        clock: Clock,
    ) -> None:
        self.stopped = False
        """Nothing is to be sent any more; may be set from any thread."""
        self._session_id = session_id
        self._info = info
        self._snapshot = snapshot
        self._deliver = deliver
        self._clock = clock
        self._backoff = Backoff(clock.jitter, cap=2.0)
        self._leases = LeaseClock()
        self._introduce = True
        self._place_free_at: float | None = None
        """When the lease of the process is over that was first found in our place."""

    def introduce(self) -> None:
        """Makes the next Sync carry the agent's info; for any thread."""
        self._introduce = True

    def describe(self, info: AgentInfo) -> None:
        """Makes the next Sync carry this info; for any thread."""
        self._info = info
        self._introduce = True

    def broken(self, defect: Exception) -> None:
        """Ends the agent, which without renewals would lose its leases unnoticed."""
        self._deliver(Ended(defect))

    def begin(self) -> Beat:
        """Returns the next Sync, to be sent now."""
        self._fence_if_due()
        sent_at = self._clock.monotonic()
        held = self._snapshot()
        info = self._info if self._introduce else None
        request = SyncRequest(session_id=self._session_id, held=held.values(), info=info)
        return Beat(request, self._call_seconds(sent_at), sent_at, frozenset(held))

    def conclude(self, beat: Beat, answer: SyncResponse | ControlPlaneError) -> float:
        """Takes the answer of a Sync and returns how long to wait before the next."""
        introduced = beat.request.HasField("info")
        match answer:
            case SessionUnknown():
                return self._unknown(introduced=introduced)
            case AgentMustStop():
                self.stopped = True
                self._deliver(Ended(answer))
                return 0.0
            case IdentityInUse() if self._is_held_by_the_living(answer, beat):
                return self.conclude(beat, SessionReplaced(str(answer)))
            case ControlPlaneError():
                return self._missed(answer)
            case SyncResponse():
                if introduced and beat.request.info == self._info:
                    self._introduce = False
                return self._accepted(answer, beat)

    def _accepted(self, response: SyncResponse, beat: Beat) -> float:
        lease_seconds = response.lease_duration.ToTimedelta().total_seconds()
        if self._backoff.failures:
            log.info("control_plane_reached", failures=self._backoff.failures)
        self._backoff.reset()
        self._place_free_at = None
        self._leases.renew(beat.sent_at, lease_seconds)
        if self._fence_if_due():
            return 0.0
        self._deliver(Renewed(beat.held, tuple(response.directives), response.server_version))
        interval = response.interval.ToTimedelta().total_seconds()
        return max(SHORTEST_INTERVAL_SECONDS, min(interval, lease_seconds * MAX_INTERVAL_SHARE))

    def _is_held_by_the_living(self, error: IdentityInUse, beat: Beat) -> bool:
        """Tells whether the place is taken after the lease that it was taken by: then that has been renewed."""
        if self._place_free_at is None:
            self._place_free_at = self._clock.monotonic() + error.lease_seconds
        return beat.sent_at > self._place_free_at

    def _unknown(self, *, introduced: bool) -> float:
        self._introduce = True
        return self._backoff.next() if introduced else 0.0

    def _missed(self, error: ControlPlaneError) -> float:
        if self.stopped:
            return 0.0
        delay = self._backoff.next()
        log.warning("sync_failed", reason=str(error), failures=self._backoff.failures)
        self._fence_if_due()
        remaining = self._leases.remaining(self._clock.monotonic())
        return delay if remaining is None else max(0.0, min(delay, remaining))

    def _call_seconds(self, now: float) -> float:
        remaining = self._leases.remaining(now)
        return CALL_SECONDS if remaining is None else max(SHORTEST_CALL_SECONDS, min(CALL_SECONDS, remaining))

    def _fence_if_due(self) -> bool:
        remaining = self._leases.remaining(self._clock.monotonic())
        if remaining is None or remaining > 0:
            return False
        self._leases.fenced = True
        log.error("leases_expired", reason="no Sync was accepted in time; running attempts are killed")
        self._deliver(Fenced())
        return True
