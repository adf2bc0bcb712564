"""What is held, which starts are still to be told, and slots that never overflow."""

from hypothesis import given
from hypothesis import strategies as st

from towline.v1.agent_service_pb2 import HeldAttempt
from towline_agent.holdings import CONFIRM_SECONDS, Holdings, lease_key
from towline_agent.lifecycle import Event
from towline_agent.slots import Slots
from towline_agent.testing import FakeClock, make_offer


def test_a_key_names_the_hand_out_and_not_its_token() -> None:
    offers = [make_offer(), make_offer(epoch=2), make_offer(attempt=2), make_offer("other"), make_offer(run="other")]
    assert len({lease_key(offer.lease) for offer in offers}) == 5
    stolen = make_offer()
    stolen.lease.token = ""
    assert lease_key(stolen.lease) == lease_key(make_offer().lease)


def test_starts_that_no_message_carried_ask_for_a_sync_after_a_moment() -> None:
    clock, asked = FakeClock(), list[float]()
    holdings = Holdings(clock, lambda: asked.append(clock.now))
    holdings.add(make_offer("a"), 1000.0)
    clock.advance(CONFIRM_SECONDS / 2)
    assert [lease.node_id for lease in holdings.take_starts()] == ["a"]
    holdings.add(make_offer("b"), 1000.0)
    clock.advance(CONFIRM_SECONDS / 2)
    assert asked == []
    clock.advance(CONFIRM_SECONDS)
    assert len(asked) == 1


def test_starts_of_a_message_that_failed_are_told_again_if_still_held() -> None:
    holdings = Holdings(FakeClock(), lambda: None)
    holdings.add(make_offer("a"), 1000.0)
    gone = holdings.add(make_offer("b"), 1000.0)
    starts = holdings.take_starts()
    assert holdings.take_starts() == []
    assert gone is not None
    holdings.remove(gone.key)
    holdings.put_back(starts)
    assert [lease.node_id for lease in holdings.take_starts()] == ["a"]


def test_what_an_earlier_process_has_left_is_held_until_it_is_answered() -> None:
    holdings = Holdings(FakeClock(), lambda: None)
    left, own = make_offer("left").lease, make_offer("own")
    holdings.take_over([left])
    holdings.add(own, 1000.0)
    assert {held.lease.node_id: held.phase for held in holdings.snapshot().values()} == {
        "left": HeldAttempt.REPORTING,
        "own": HeldAttempt.PREPARING,
    }
    assert (len(holdings), [lease.node_id for lease in holdings.take_starts()]) == (1, ["own"])
    holdings.remove(lease_key(left))
    assert holdings.snapshot().keys() == {lease_key(own.lease)}


def test_a_result_confirms_its_own_start() -> None:
    holdings = Holdings(FakeClock(), lambda: None)
    attempt = holdings.add(make_offer("a"), 1000.0)
    assert attempt is not None
    for event in (Event.BEGIN, Event.LAUNCH, Event.END):
        attempt.apply(event)
    assert holdings.take_starts() == []


def test_what_is_being_discarded_is_not_held() -> None:
    holdings = Holdings(FakeClock(), lambda: None)
    kept, lost = holdings.add(make_offer("a"), 1000.0), holdings.add(make_offer("b"), 1000.0)
    assert kept is not None
    assert lost is not None
    lost.apply(Event.RELEASE)
    assert [(held.lease.node_id, held.phase) for held in holdings.snapshot().values()] == [("a", HeldAttempt.PREPARING)]


@given(
    st.integers(1, 5), st.lists(st.tuples(st.sampled_from(["ask", "answer", "end"]), st.integers(0, 9)), max_size=60)
)
def test_slots_never_overflow_and_never_leak(total: int, moves: list[tuple[str, int]]) -> None:
    slots = Slots(total, lambda: None)
    asked: list[int] = []
    running: list[int] = []
    for move, number in moves:
        if move == "ask":
            asked.append(slots.reserve())
        elif move == "answer" and asked:
            weights = [1 + (number + place) % 3 for place in range(number)]
            running += weights[: slots.settle(asked.pop(), weights)]
        elif move == "end" and running:
            slots.release(running.pop())
        assert sum(running) == slots.occupied <= total
        assert slots.free == total - sum(running) - sum(asked) >= 0


def test_an_attempt_lapses_only_while_it_is_held_and_no_sync_has_acknowledged_it() -> None:
    clock, lapsed = FakeClock(), list[str]()
    holdings = Holdings(clock, lambda: None)
    holdings.lapsed = lambda attempt: lapsed.append(attempt.offer.lease.node_id)
    for node in ("silent", "acknowledged", "ended"):
        assert holdings.add(make_offer(node), clock.now) is not None
    assert len(holdings.take_starts()) == 3
    holdings.confirmed([lease_key(make_offer("acknowledged").lease)])
    holdings.remove(lease_key(make_offer("ended").lease))
    clock.advance(5.0)
    assert lapsed == ["silent"]


def test_an_offer_that_came_too_late_is_not_taken() -> None:
    clock = FakeClock()
    assert Holdings(clock, lambda: None).add(make_offer(), clock.now - 5.0) is None
