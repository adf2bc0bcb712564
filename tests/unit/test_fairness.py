"""I32: whoever has enqueued much does not delay another by more than a round."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from towline_controlplane.fairness import FairShares, Lane

LANE: Lane = ("queue", 0)
OWNERS = st.sampled_from(["ann", "bob", "cid"])


class Queue:
    """One lane served in the order of its keys."""

    def __init__(self) -> None:
        self.shares = FairShares()
        self.now = 1_700_000_000_000_000
        self.waiting: list[tuple[int, int, str]] = []
        self.count = 0

    def enqueue(self, owner: str, steps: int = 1) -> None:
        heads = {LANE: min(self.waiting)[0]} if self.waiting else {}
        for _ in range(steps):
            self.count += 1
            self.waiting.append((self.shares.next_key(LANE, owner, heads, self.now), self.count, owner))

    def serve(self) -> str:
        first = min(self.waiting)
        self.waiting.remove(first)
        self.now += 1_000
        return first[2]


def test_a_single_step_goes_with_the_current_round() -> None:
    queue = Queue()
    queue.enqueue("ann", 10_000)
    for _ in range(100):
        queue.serve()
    queue.enqueue("bob")
    assert "bob" in {queue.serve() for _ in range(2)}


def test_owners_with_much_to_do_take_turns() -> None:
    queue = Queue()
    queue.enqueue("ann", 1_000)
    queue.enqueue("bob", 1_000)
    assert abs(Counter(queue.serve() for _ in range(100))["ann"] - 50) <= 1


def test_who_was_served_long_ago_does_not_pay_for_it() -> None:
    queue = Queue()
    queue.enqueue("ann", 1_000)
    for _ in range(1_000):
        queue.serve()
    queue.enqueue("ann", 50)
    queue.enqueue("bob", 50)
    assert 24 <= Counter(queue.serve() for _ in range(50))["ann"] <= 26


def test_a_restart_forgets_no_more_than_an_order() -> None:
    queue = Queue()
    queue.enqueue("ann", 1_000)
    queue.shares = FairShares()
    queue.enqueue("ann", 1_000)
    queue.enqueue("bob")
    assert "bob" in {queue.serve() for _ in range(3)}


def test_memory_is_bounded_and_a_forgotten_owner_joins_the_current_round() -> None:
    shares = FairShares(max_owners=2)
    first = shares.next_key(LANE, "ann", {}, 100)
    for owner in ("bob", "cid"):
        shares.next_key(LANE, owner, {LANE: first}, 100)
    assert shares.next_key(LANE, "ann", {LANE: first}, 100) == first


@given(st.lists(st.tuples(OWNERS, st.integers(1, 30), st.integers(0, 30)), max_size=30))
def test_nobody_waits_for_more_than_a_round(steps: list[tuple[str, int, int]]) -> None:
    queue = Queue()
    for owner, enqueued, served in steps:
        queue.enqueue(owner, enqueued)
        for _ in range(min(served, len(queue.waiting))):
            queue.serve()
    queue.enqueue("dan")
    assert "dan" in {queue.serve() for _ in range(min(len(queue.waiting), 8))}
