"""The transition tables, pair by pair, against the life of a run, a step and an attempt as the design has it."""

from collections.abc import Mapping
from enum import StrEnum
from itertools import product

import pytest

from towline_controlplane.engine import transitions
from towline_controlplane.engine.transitions import ATTEMPT, RUN, STEP, IllegalTransition, check
from towline_controlplane.model import AttemptState, RunState, StepState

LEGAL: dict[type[StrEnum], str] = {
    RunState: """
        PENDING → RUNNING PAUSED SUCCEEDED FAILED CANCELLED TIMED_OUT
        RUNNING → PAUSED SUCCEEDED FAILED CANCELLED TIMED_OUT
        PAUSED → RUNNING SUCCEEDED FAILED CANCELLED TIMED_OUT
    """,
    StepState: """
        WAITING → READY FAILED SKIPPED CANCELLED
        READY → LEASED CANCELLED TIMED_OUT
        LEASED → READY PARKED SUCCEEDED FAILED CANCELLED TIMED_OUT
        PARKED → READY SUCCEEDED FAILED CANCELLED
    """,
    AttemptState: """
        OFFERED → RUNNING CANCELLED LOST
        RUNNING → SUCCEEDED FAILED CANCELLED TIMED_OUT LOST
    """,
}
TABLES: Mapping[type[StrEnum], Mapping[StrEnum, frozenset[StrEnum]]] = {
    RunState: {old: frozenset(after) for old, after in RUN.items()},
    StepState: {old: frozenset(after) for old, after in STEP.items()},
    AttemptState: {old: frozenset(after) for old, after in ATTEMPT.items()},
}


def legal_pairs(states: type[StrEnum]) -> set[tuple[str, str]]:
    lines = (line.split(" → ") for line in LEGAL[states].strip().splitlines())
    return {(old.strip(), new) for old, after in lines for new in after.split()}


PAIRS = [(states, old, new) for states in TABLES for old, new in product(states, states)]


@pytest.mark.parametrize(("states", "old", "new"), PAIRS, ids=str)
def test_a_pair_is_legal_if_and_only_if_the_design_has_it(states: type[StrEnum], old: StrEnum, new: StrEnum) -> None:
    if (old, new) in legal_pairs(states):
        assert check(TABLES[states], old, new) is new
    else:
        with pytest.raises(IllegalTransition, match=f"{old} → {new}"):
            check(TABLES[states], old, new)


@pytest.mark.parametrize("states", TABLES)
def test_each_state_has_a_row(states: type[StrEnum]) -> None:
    assert set(TABLES[states]) == set(states)


def test_what_has_ended_stays_as_it_is() -> None:
    assert {"SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT"} == transitions.RUN_TERMINAL
    assert {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED", "TIMED_OUT"} == transitions.STEP_TERMINAL
    assert {"SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT", "LOST"} == transitions.ATTEMPT_TERMINAL


@pytest.mark.parametrize(
    ("states", "start"), [(RunState, "PENDING"), (StepState, "WAITING"), (AttemptState, "OFFERED")]
)
def test_every_state_is_reached_from_the_first_and_leads_to_an_end(states: type[StrEnum], start: str) -> None:
    table = TABLES[states]
    assert _reached(table, states(start)) == set(states)
    assert all(any(not table[end] for end in _reached(table, state)) for state in states)


def test_only_a_retry_leaves_an_end_and_never_a_success_of_a_run() -> None:
    assert set(transitions.RUN_RETRY) == transitions.RUN_TERMINAL - {RunState.SUCCEEDED}
    assert set(transitions.STEP_RETRY) == transitions.STEP_TERMINAL
    assert {*transitions.RUN_RETRY.values()} == {frozenset({RunState.PENDING})}
    assert {*transitions.STEP_RETRY.values()} == {frozenset({StepState.WAITING})}


def _reached(table: Mapping[StrEnum, frozenset[StrEnum]], start: StrEnum) -> set[StrEnum]:
    reached = {start}
    while more := {new for old in reached for new in table[old]} - reached:
        reached |= more
    return reached
