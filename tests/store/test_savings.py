"""Which step is waited for and who saves up for it: one answer for all replicas."""

import pytest
from store_samples import Store

from towline_controlplane.store import savings
from towline_controlplane.store.savings import Passed

HEAD, NEXT = ("run-1", "a"), ("run-1", "b")


def test_a_head_waits_from_when_it_was_first_noted(store: Store) -> None:
    began = store.clock.now
    assert store.write(savings.note_passed, "q", HEAD) == Passed("q", HEAD, began)
    store.clock.now += 10
    assert store.write(savings.note_passed, "q", HEAD) == Passed("q", HEAD, began)
    store.write(savings.note_passed, "other", HEAD)
    assert store.write(savings.note_passed, "q", NEXT) == Passed("q", NEXT, began + 10)
    assert store.read(savings.all_passed) == {
        "q": Passed("q", NEXT, began + 10),
        "other": Passed("other", HEAD, began + 10),
    }
    store.write(savings.forget_passed, "q")
    assert store.read(savings.all_passed).keys() == {"other"}


def test_one_agent_saves_up_for_a_head_until_it_asks_no_more(store: Store) -> None:
    passed = store.write(savings.note_passed, "q", HEAD)
    began = store.clock.now
    assert store.write(savings.ask_if_saver, passed, "agent-1", began - 5)
    assert not store.write(savings.ask_if_saver, passed, "agent-2", began - 5)
    store.clock.now += 4
    assert store.write(savings.ask_if_saver, passed, "agent-1", began - 1)
    assert store.write(savings.note_passed, "q", HEAD) == Passed("q", HEAD, began, "agent-1", began + 4)
    assert not store.write(savings.ask_if_saver, passed, "agent-2", began + 4)
    assert store.write(savings.ask_if_saver, passed, "agent-2", began + 5)
    assert store.read(savings.all_passed)["q"].saver == "agent-2"


@pytest.mark.parametrize("change", [savings.note_passed, savings.forget_passed])
def test_nobody_saves_up_for_what_is_not_the_head_any_more(store: Store, change: object) -> None:
    passed = store.write(savings.note_passed, "q", HEAD)
    if change is savings.note_passed:
        store.write(savings.note_passed, "q", NEXT)
    else:
        store.write(savings.forget_passed, "q")
    assert not store.write(savings.ask_if_saver, passed, "agent-1", 0)
