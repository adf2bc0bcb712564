"""How long an attempt may run before its start is acknowledged."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_agent.confirmations import ASK_SHARE, MARGIN_SHARE, Confirmations
from towline_agent.testing import FakeClock

ASK, LAPSE = 5 * ASK_SHARE, 5 * (1 - MARGIN_SHARE)


@dataclass
class Bench:
    clock: FakeClock = field(default_factory=FakeClock)
    asked: list[float] = field(default_factory=list[float])
    lapsed: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])

    def __post_init__(self) -> None:
        self.confirmations = Confirmations(
            self.clock,
            lambda: self.asked.append(self.clock.now),
            lambda key: self.lapsed.append((key, self.clock.now)),
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_silence_asks_for_a_sync_once_and_then_gives_the_attempt_up_once(bench: Bench) -> None:
    start = bench.clock.now
    bench.confirmations.expect("a", start, 5.0)
    for _ in range(200):
        bench.clock.advance(0.05)
    assert bench.asked == [pytest.approx(start + ASK, abs=0.06)]
    assert bench.lapsed == [("a", pytest.approx(start + LAPSE, abs=0.06))]


def test_an_acknowledged_attempt_is_left_alone(bench: Bench) -> None:
    bench.confirmations.expect("a", bench.clock.now, 5.0)
    bench.confirmations.acknowledge(["a", "unknown"])
    bench.clock.advance(10.0)
    assert (bench.asked, bench.lapsed) == ([], [])


def test_the_time_on_the_way_is_part_of_the_time(bench: Bench) -> None:
    assert bench.confirmations.expect("a", bench.clock.now - 4.0, 5.0)
    bench.clock.advance(1.0)
    assert [key for key, _ in bench.lapsed] == ["a"]


@pytest.mark.parametrize("on_the_way", [5.0, 60.0])
def test_what_was_too_long_on_the_way_is_not_expected(bench: Bench, on_the_way: float) -> None:
    assert not bench.confirmations.expect("a", bench.clock.now - on_the_way, 5.0)
    bench.clock.advance(10.0)
    assert (bench.asked, bench.lapsed) == ([], [])


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 6), st.floats(1, 30)), max_size=8),
    st.sets(st.integers(0, 7)),
    st.floats(0.01, 0.5),
)
def test_nothing_outlives_its_offer(
    offers: list[tuple[float, float, float]], acknowledged: set[int], step: float
) -> None:
    bench, ends = Bench(), dict[str, float]()
    for number, (pause, on_the_way, within) in enumerate(offers):
        bench.clock.advance(pause)
        asked_at = bench.clock.now - on_the_way
        if bench.confirmations.expect(str(number), asked_at, within):
            ends[str(number)] = asked_at + within
        if number in acknowledged:
            bench.confirmations.acknowledge([str(number)])
            ends.pop(str(number), None)
    for _ in range(int(31 / step) + 2):
        bench.clock.advance(step)
    assert sorted(key for key, _ in bench.lapsed) == sorted(ends)
    longest_pause = max([step, *(pause for pause, _, _ in offers)])
    assert all(at <= ends[key] + longest_pause for key, at in bench.lapsed)
