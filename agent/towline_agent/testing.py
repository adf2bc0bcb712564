"""A control plane and a clock to test against: in process, scripted, with the guarantees of the real ones.

`FakeControlPlane` hands out what it is given, records what it is told, can be away, lose answers and forget sessions;
`FakeClock` moves only when it is told to.
"""

import asyncio
import heapq
import itertools
import threading
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from towline.v1.agent_service_pb2 import (
    AppendLogsRequest,
    AppendLogsResponse,
    AttemptResult,
    Directive,
    EnrollRequest,
    EnrollResponse,
    Lease,
    Offer,
    PluginRef,
    PullRequest,
    PullResponse,
    ReportRequest,
    ReportResponse,
    SyncRequest,
    SyncResponse,
    Verdict,
)
from towline.v1.workflow_pb2 import Limits
from towline_agent.control_plane import ControlPlaneError, RequestRefused, SessionUnknown, Unavailable
from towline_agent.testing_artifacts import FakeArtifacts


def duration(seconds: float) -> Duration:
    """A protobuf duration."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def make_offer(node: str = "step", *, run: str = "run", attempt: int = 1, epoch: int = 1, digest: str = "") -> Offer:
    """An offer of a built-in, or of a bundle, with ordinary limits."""
    return Offer(
        lease=Lease(run_id=run, node_id=node, attempt=attempt, epoch=epoch, token=f"token-of-{node}"),
        execution_key=f"key-of-{node}",
        plugin=PluginRef(name="PLAY", digest=digest, entry_point="python:play:run"),
        config_json=b'{"text":"hello"}',
        inputs_json=b"{}",
        run_input_json=b"null",
        limits=Limits(
            timeout=duration(30),
            memory_bytes=512 * 1024 * 1024,
            output_bytes=1024 * 1024,
            log_bytes=1024 * 1024,
            artifact_bytes=1024 * 1024,
        ),
        confirm_within=duration(5),
    )


class FakeClock:
    """Elapsed and wall time that stand still until `advance`; never random but for its ids."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        """Seconds that were advanced."""
        return self.now

    def micros(self) -> int:
        """The same time as microseconds."""
        return int(self.now * 1_000_000)

    def jitter(self) -> float:
        """Always the longest wait."""
        return 1.0

    def new_id(self) -> str:
        """A random UUID."""
        return str(uuid.uuid4())

    def call_later(self, seconds: float, callback: Callable[[], object]) -> "FakeTimer":
        """Runs `callback` in the `advance` that reaches its time."""
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self.now + seconds, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Moves time on and runs what is due."""
        self.now += seconds
        while self._timers and self._timers[0][0] <= self.now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                timer.callback()


@dataclass(slots=True)
class FakeTimer:
    """A timer of the fake clock."""

    callback: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        """Makes the callback never run."""
        self.cancelled = True


@dataclass(slots=True)
class FakeLog:
    """The log of one attempt as the control plane has it."""

    data: bytes = b""
    final: bool = False


@dataclass(slots=True)
class FakeControlPlane(FakeArtifacts):
    """A control plane of one agent. Its loop side belongs to one event loop; `sync` may be called from any thread."""

    lease_seconds: float = 30.0
    interval_seconds: float = 10.0
    log_interval_seconds: float = 0.0
    plugins: dict[str, bytes] = field(default_factory=dict[str, bytes])
    drained: bool = False
    away: bool = False
    """Every call fails as if nobody listened."""
    verdicts: dict[str, Verdict.Code] = field(default_factory=dict[str, Verdict.Code])
    """Verdicts by node id; others are accepted."""
    refused: list[str] = field(default_factory=list[str])
    """Names of calls that fail as if nobody listened."""
    lost_answers: deque[str] = field(default_factory=deque[str])
    """Names of calls that are served but whose next answer gets lost, in order."""
    errors: dict[str, deque[ControlPlaneError]] = field(default_factory=dict[str, deque[ControlPlaneError]])
    """Errors that the next calls of a name raise instead of being served."""
    on_result: Callable[[AttemptResult], list[Offer]] = lambda result: []
    """What becomes ready by an accepted result."""
    log_answers: deque[int] = field(default_factory=deque[int])
    """Offsets that the next log answers ask for, whatever was received."""

    offers: deque[Offer] = field(default_factory=deque[Offer])
    pulls: list[PullRequest] = field(default_factory=list[PullRequest])
    reports: list[ReportRequest] = field(default_factory=list[ReportRequest])
    syncs: list[SyncRequest] = field(default_factory=list[SyncRequest])
    enrollments: list[EnrollRequest] = field(default_factory=list[EnrollRequest])
    results: dict[str, AttemptResult] = field(default_factory=dict[str, AttemptResult])
    """The accepted results by node id."""
    logs: dict[str, FakeLog] = field(default_factory=dict[str, FakeLog])
    log_requests: list[AppendLogsRequest] = field(default_factory=list[AppendLogsRequest])
    known_sessions: set[str] = field(default_factory=set[str])
    _directives: list[Directive] = field(default_factory=list[Directive])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def offer(self, *offers: Offer) -> None:
        """Makes steps ready."""
        self.offers.extend(offers)
        self._ring()

    def direct(self, action: Directive.Action, lease: Lease, reason: str = "") -> None:
        """Gives a directive to the next Sync."""
        with self._lock:
            self._directives.append(Directive(action=action, lease=lease, reason=reason))

    def forget_sessions(self) -> None:
        """Makes the control plane know no session any more, as after the loss of its memory."""
        with self._lock:
            self.known_sessions.clear()

    def come_back(self) -> None:
        """Ends `away`."""
        self.away = False
        self._ring()

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns once `holds()` is true; looks whenever something was said to this control plane."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(holds)

    async def enroll(self, request: EnrollRequest) -> EnrollResponse:
        """Accepts any token but `wrong`."""
        self._fail("enroll")
        self.enrollments.append(request)
        return EnrollResponse(agent_id=f"id-of-{request.name}", credential="secret")

    async def pull(self, request: PullRequest) -> PullResponse:
        """Waits until a step is ready or the control plane goes away."""
        self._fail("pull", request.session_id)
        self.pulls.append(request)
        self._ring()
        async with self._changed:
            await self._changed.wait_for(lambda: self.offers or self.away)
        self._fail("pull")
        return PullResponse(offers=self._hand_out("pull", request.want))

    async def report(self, request: ReportRequest) -> ReportResponse:
        """Records results once, gives its verdicts and up to `want` offers."""
        self._fail("report", request.session_id)
        self.reports.append(request)
        verdicts = [Verdict(code=self._record(result)) for result in request.results]
        self._ring()
        return ReportResponse(verdicts=verdicts, offers=self._hand_out("report", request.want))

    def sync(self, request: SyncRequest, timeout_seconds: float) -> SyncResponse:
        """Renews; asks for the agent's info if the session is new."""
        with self._lock:
            self._fail("sync")
            if not request.HasField("info") and request.session_id not in self.known_sessions:
                raise SessionUnknown("session")
            self.known_sessions.add(request.session_id)
            self.syncs.append(request)
            directives, self._directives = self._directives, []
            directives += [Directive(action=Directive.DRAIN)] if self.drained else []
        self._ring()
        self._answer("sync")
        return SyncResponse(
            lease_duration=duration(self.lease_seconds),
            interval=duration(self.interval_seconds),
            directives=directives,
            server_version="fake",
        )

    async def append_logs(self, requests: AsyncIterator[AppendLogsRequest]) -> AsyncIterator[AppendLogsResponse]:
        """Appends what fits the end of a log and answers the next wanted offset."""
        self._fail("append_logs")
        async for request in requests:
            self._fail("append_logs")
            response = self._append(request)
            self._ring()
            self._answer("append_logs")
            yield response

    async def fetch_plugin(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Streams a bundle, or part of it if told to break."""
        self._fail("fetch_plugin")
        self.fetches.append((digest, offset))
        if digest not in self.plugins:
            raise RequestRefused("NOT_FOUND")
        data = self.plugins[digest]
        end = offset + self.break_fetch_after.popleft() if self.break_fetch_after else len(data)
        for start in range(offset, min(end, len(data)), self.chunk_bytes):
            yield data[start : min(start + self.chunk_bytes, end)]
        if end < len(data):
            raise Unavailable("broken")

    def close(self) -> None:
        """Nothing to close."""

    def _append(self, request: AppendLogsRequest) -> AppendLogsResponse:
        self.log_requests.append(request)
        lost = request.lease.node_id in self.lost_leases
        log = self.logs.setdefault(request.lease.node_id, FakeLog())
        if self.log_answers:
            asked = self.log_answers.popleft()
            log.data = log.data[:asked]
        elif request.offset <= len(log.data) and not lost:
            log.data += request.data[len(log.data) - request.offset :]
            log.final = request.final
        return AppendLogsResponse(
            lease=request.lease,
            next_offset=len(log.data),
            lease_lost=lost,
            interval=duration(self.log_interval_seconds),
        )

    def _record(self, result: AttemptResult) -> Verdict.Code:
        node = result.lease.node_id
        verdict = self.verdicts.get(node, Verdict.ACCEPTED)
        if verdict == Verdict.ACCEPTED and node not in self.results:
            self.results[node] = result
            self.offers.extend(self.on_result(result))
        return verdict

    def _hand_out(self, name: str, want: int) -> list[Offer]:
        self._answer(name)  # what a lost answer would have offered is not confirmed and goes back
        return [self.offers.popleft() for _ in range(min(want, len(self.offers)))]

    def _fail(self, name: str, session_id: str | None = None) -> None:
        if self.away or name in self.refused:
            raise Unavailable("away")
        if scripted := self.errors.get(name):
            raise scripted.popleft()
        if session_id is not None and session_id not in self.known_sessions:
            raise SessionUnknown("session")

    def _answer(self, name: str) -> None:
        if self.lost_answers and self.lost_answers[0] == name:
            self.lost_answers.popleft()
            raise Unavailable("the answer was lost")

    def _ring(self) -> None:
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._notify()))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
