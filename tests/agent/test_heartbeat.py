"""Renewal of the leases and self-fencing, one Sync at a time on a clock that stands still."""

from collections import deque
from dataclasses import dataclass, field

import pytest

from towline.v1.agent_pb2 import AgentInfo
from towline.v1.agent_service_pb2 import Directive, HeldAttempt, SyncRequest, SyncResponse
from towline_agent.control_plane import (
    AgentMustStop,
    ControlPlaneError,
    CredentialRefused,
    IdentityInUse,
    RequestRefused,
    SessionReplaced,
    SessionUnknown,
    Unavailable,
)
from towline_agent.heartbeat import Heartbeat
from towline_agent.pulse import ThreadPulse
from towline_agent.session import Ended, Fenced, Notice, Renewed
from towline_agent.testing import FakeClock, duration, make_offer

LEASE = make_offer().lease


@dataclass
class Line:
    """A scripted connection: each Sync takes some time, then answers or fails."""

    clock: FakeClock
    script: deque[Exception | SyncResponse] = field(default_factory=deque[Exception | SyncResponse])
    takes_seconds: float = 0.0
    requests: list[SyncRequest] = field(default_factory=list[SyncRequest])
    timeouts: list[float] = field(default_factory=list[float])

    def sync(self, request: SyncRequest, timeout_seconds: float) -> SyncResponse:
        self.requests.append(request)
        self.timeouts.append(timeout_seconds)
        self.clock.advance(self.takes_seconds)
        answer = self.script.popleft() if self.script else accepted()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None: ...


@dataclass
class Bench:
    clock: FakeClock
    line: Line
    notices: list[Notice]
    heartbeat: Heartbeat

    def tick(self) -> float:
        return ThreadPulse(self.line).tick(self.heartbeat)

    def run(self) -> None:
        ThreadPulse(self.line).run(self.heartbeat)


def accepted(interval: float = 10.0, directives: tuple[Directive, ...] = ()) -> SyncResponse:
    return SyncResponse(lease_duration=duration(30), interval=duration(interval), directives=directives)


def held() -> dict[str, HeldAttempt]:
    return {"key": HeldAttempt(lease=LEASE)}


@pytest.fixture
def bench() -> Bench:
    clock = FakeClock()
    line = Line(clock)
    notices: list[Notice] = []
    heartbeat = Heartbeat("session", AgentInfo(slots=4), held, notices.append, clock)
    return Bench(clock, line, notices, heartbeat)


def test_the_first_sync_introduces_the_agent_and_later_ones_do_not(bench: Bench) -> None:
    assert bench.tick() == 10.0
    bench.tick()
    assert [request.HasField("info") for request in bench.line.requests] == [True, False]
    assert bench.line.requests[0].held[0].lease == LEASE
    assert bench.notices[0] == Renewed(frozenset({"key"}), ())


def test_directives_are_delivered(bench: Bench) -> None:
    directive = Directive(action=Directive.CANCEL, lease=LEASE, reason="why")
    bench.line.script.append(accepted(directives=(directive,)))
    bench.tick()
    assert bench.notices == [Renewed(frozenset({"key"}), (directive,))]


@pytest.mark.parametrize(("named", "taken"), [(3.0, 3.0), (60.0, 10.0), (0.0, 0.05)])
def test_the_server_names_the_interval_within_reason(bench: Bench, named: float, taken: float) -> None:
    bench.line.script.append(accepted(interval=named))
    assert bench.tick() == taken


def test_an_unknown_session_is_introduced_again_at_once(bench: Bench) -> None:
    bench.tick()
    bench.line.script.append(SessionUnknown("gone"))
    assert bench.tick() == 0.0
    bench.tick()
    assert [request.HasField("info") for request in bench.line.requests] == [True, False, True]


def test_a_session_that_stays_unknown_is_not_introduced_in_a_frenzy(bench: Bench) -> None:
    bench.line.script.extend([SessionUnknown("gone")] * 2)
    assert 0 < bench.tick() < bench.tick()


@pytest.mark.parametrize("error", [SessionReplaced("other"), CredentialRefused("revoked")])
def test_an_agent_that_lost_its_place_hears_it_and_the_thread_ends(bench: Bench, error: AgentMustStop) -> None:
    bench.line.script.append(error)
    bench.run()
    assert bench.notices == [Ended(error)]
    assert len(bench.line.requests) == 1


@pytest.mark.parametrize("error", [Unavailable("away"), RequestRefused("odd")])
def test_leases_that_are_not_renewed_are_fenced_once_and_before_they_end(
    bench: Bench, error: ControlPlaneError
) -> None:
    bench.tick()
    start = bench.clock.now
    bench.line.script.extend([error] * 1000)
    fenced_at = 0.0
    while bench.clock.now < start + 60:
        bench.clock.advance(bench.tick())
        if not fenced_at and Fenced() in bench.notices:
            fenced_at = bench.clock.now
    assert bench.notices.count(Fenced()) == 1
    assert start + 24.9 <= fenced_at <= start + 27


def test_the_lease_counts_from_the_sending_of_the_request(bench: Bench) -> None:
    bench.line.takes_seconds = 20.0
    bench.tick()
    bench.line.takes_seconds = 0.0
    bench.line.script.append(Unavailable("away"))
    bench.clock.advance(4.9)
    bench.tick()
    assert Fenced() not in bench.notices
    bench.line.script.append(Unavailable("away"))
    bench.clock.advance(0.2)
    bench.tick()
    assert bench.notices[-1] == Fenced()


def test_who_finds_its_place_taken_waits_for_the_lease_to_end_and_gives_up_if_it_was_renewed(bench: Bench) -> None:
    bench.line.script.extend([IdentityInUse("on 'elsewhere'", 20.0)] * 100)
    start = bench.clock.now
    while not bench.notices:
        bench.clock.advance(bench.tick())
    [ended] = bench.notices
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, SessionReplaced)
    assert "elsewhere" in str(ended.error)
    assert start + 20 < bench.clock.now <= start + 22
    assert bench.heartbeat.stopped


def test_who_finds_its_place_taken_comes_in_once_it_is_free(bench: Bench) -> None:
    for _ in range(2):
        bench.line.script.extend([IdentityInUse("taken", 5.0), Unavailable("away"), IdentityInUse("taken", 1.0)])
        for _ in range(3):
            bench.clock.advance(bench.tick())
        bench.clock.advance(60)
        bench.tick()
        assert [type(notice) for notice in bench.notices if not isinstance(notice, Fenced)] == [Renewed]
        bench.notices.clear()


def test_an_answer_that_comes_after_the_lease_renews_nothing(bench: Bench) -> None:
    bench.tick()
    bench.line.takes_seconds = 26.0
    assert bench.tick() == 0.0
    assert bench.notices[-1] == Fenced()
    bench.line.takes_seconds = 0.0
    bench.tick()
    assert isinstance(bench.notices[-1], Renewed)


def test_a_process_that_slept_finds_the_fence_before_it_sends_anything(bench: Bench) -> None:
    bench.tick()
    bench.clock.advance(300.0)
    bench.tick()
    assert [type(notice) for notice in bench.notices] == [Renewed, Fenced, Renewed]


def test_a_call_does_not_outlast_the_lease(bench: Bench) -> None:
    bench.tick()
    bench.clock.advance(23.0)
    bench.tick()
    assert bench.line.timeouts == [5.0, 2.0]


def test_a_defect_ends_the_agent_and_not_only_the_thread(bench: Bench) -> None:
    defect = ZeroDivisionError()
    bench.line.script.append(defect)
    bench.run()
    assert bench.notices == [Ended(defect)]


def test_an_agent_that_never_reached_its_control_plane_has_nothing_to_lose(bench: Bench) -> None:
    bench.line.script.extend([Unavailable("away")] * 5)
    for _ in range(5):
        bench.clock.advance(60.0)
        bench.tick()
    assert bench.notices == []
