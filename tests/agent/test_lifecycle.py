"""The table of an attempt's life."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_agent.lifecycle import TRANSITIONS, Action, Event, IllegalTransition, Phase, step

STORIES = {
    "succeeds": ([Event.BEGIN, Event.LAUNCH, Event.END, Event.VERDICT], Action.NONE, Phase.DONE),
    "cannot be prepared": ([Event.BEGIN, Event.END], Action.REPORT, Phase.REPORTING),
    "cancelled before it began": ([Event.CANCEL, Event.END], Action.REPORT, Phase.REPORTING),
    "cancelled while it ran": ([Event.BEGIN, Event.LAUNCH, Event.CANCEL], Action.STOP, Phase.STOPPING),
    "cancelled, then released": (
        [Event.BEGIN, Event.LAUNCH, Event.CANCEL, Event.RELEASE, Event.END],
        Action.NONE,
        Phase.DONE,
    ),
    "released while it ran": ([Event.BEGIN, Event.LAUNCH, Event.RELEASE], Action.STOP, Phase.DISCARDING),
    "fenced while it ran": ([Event.BEGIN, Event.LAUNCH, Event.FENCE], Action.ABORT, Phase.STOPPING),
    "fenced while it stopped": ([Event.BEGIN, Event.LAUNCH, Event.CANCEL, Event.FENCE], Action.ABORT, Phase.STOPPING),
    "fenced, then released": (
        [Event.BEGIN, Event.LAUNCH, Event.FENCE, Event.RELEASE, Event.END],
        Action.NONE,
        Phase.DONE,
    ),
    "fenced after its end": ([Event.BEGIN, Event.LAUNCH, Event.END, Event.FENCE], Action.NONE, Phase.REPORTING),
    "released after its end": ([Event.BEGIN, Event.LAUNCH, Event.END, Event.RELEASE], Action.DROP, Phase.DONE),
}


@pytest.mark.parametrize(("events", "action", "phase"), STORIES.values(), ids=STORIES.keys())
def test_stories(events: list[Event], action: Action, phase: Phase) -> None:
    assert follow(events) == (phase, action)


@pytest.mark.parametrize(
    ("phase", "event"), [pair for pair in itertools.product(Phase, Event) if pair not in TRANSITIONS]
)
def test_what_the_table_does_not_list_cannot_happen(phase: Phase, event: Event) -> None:
    with pytest.raises(IllegalTransition):
        step(phase, event)


@given(st.lists(st.sampled_from([Event.CANCEL, Event.SHUTDOWN, Event.RELEASE, Event.FENCE]), max_size=6))
def test_whatever_is_said_from_outside_is_never_illegal_and_never_revives(events: list[Event]) -> None:
    for start in Phase:
        phase = start
        for event in events:
            before, (phase, _) = phase, step(phase, event)
            assert before is not Phase.DISCARDING or phase is Phase.DISCARDING
            assert before is not Phase.DONE or phase is Phase.DONE


def follow(events: list[Event]) -> tuple[Phase, Action]:
    phase, action = Phase.OFFERED, Action.NONE
    for event in events:
        phase, action = step(phase, event)
    return phase, action
