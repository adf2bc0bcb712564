"""Every legal transition of run, step and attempt, as literal tables, and the one place that refuses the others.

The tables are the truth: the diagrams in `docs/states.md` are generated from them, and the guards in the store's SQL
are tested against them. A state without successors is terminal; only a retry of the run leaves one.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from towline_controlplane.model import AttemptState as A
from towline_controlplane.model import RunState as R
from towline_controlplane.model import StepState as S

RUN: Mapping[R, frozenset[R]] = {
    R.PENDING: frozenset({R.RUNNING, R.PAUSED, R.SUCCEEDED, R.FAILED, R.CANCELLED, R.TIMED_OUT}),
    R.RUNNING: frozenset({R.PAUSED, R.SUCCEEDED, R.FAILED, R.CANCELLED, R.TIMED_OUT}),
    R.PAUSED: frozenset({R.RUNNING, R.SUCCEEDED, R.FAILED, R.CANCELLED, R.TIMED_OUT}),
    R.SUCCEEDED: frozenset(),
    R.FAILED: frozenset(),
    R.CANCELLED: frozenset(),
    R.TIMED_OUT: frozenset(),
}

STEP: Mapping[S, frozenset[S]] = {
    S.WAITING: frozenset({S.READY, S.FAILED, S.SKIPPED, S.CANCELLED}),
    S.READY: frozenset({S.LEASED, S.CANCELLED, S.TIMED_OUT}),
    S.LEASED: frozenset({S.READY, S.PARKED, S.SUCCEEDED, S.FAILED, S.CANCELLED, S.TIMED_OUT}),
    S.PARKED: frozenset({S.READY, S.SUCCEEDED, S.FAILED, S.CANCELLED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset(),
    S.SKIPPED: frozenset(),
    S.CANCELLED: frozenset(),
    S.TIMED_OUT: frozenset(),
}

ATTEMPT: Mapping[A, frozenset[A]] = {
    A.OFFERED: frozenset({A.RUNNING, A.CANCELLED, A.LOST}),
    A.RUNNING: frozenset({A.SUCCEEDED, A.FAILED, A.CANCELLED, A.TIMED_OUT, A.LOST}),
    A.SUCCEEDED: frozenset(),
    A.FAILED: frozenset(),
    A.CANCELLED: frozenset(),
    A.TIMED_OUT: frozenset(),
    A.LOST: frozenset(),
}

RUN_RETRY: Mapping[R, frozenset[R]] = {state: frozenset({R.PENDING}) for state in (R.FAILED, R.CANCELLED, R.TIMED_OUT)}
STEP_RETRY: Mapping[S, frozenset[S]] = {
    state: frozenset({S.WAITING}) for state in (S.SUCCEEDED, S.FAILED, S.SKIPPED, S.CANCELLED, S.TIMED_OUT)
}
"""A retry of the run is the only way out of a terminal state: for the run, for its steps that did not succeed, and for
every step behind those."""

RUN_TERMINAL = frozenset(state for state, next_states in RUN.items() if not next_states)
STEP_TERMINAL = frozenset(state for state, next_states in STEP.items() if not next_states)
ATTEMPT_TERMINAL = frozenset(state for state, next_states in ATTEMPT.items() if not next_states)


class IllegalTransition(Exception):
    """A transition that no table has was asked for: a defect of the engine, never of its callers."""


State = TypeVar("State", bound=StrEnum)


def check(table: Mapping[State, frozenset[State]], old: State, new: State) -> State:
    """Returns `new` if the table has the transition; raises IllegalTransition otherwise."""
    if new not in table.get(old, ()):
        raise IllegalTransition(f"{type(old).__name__}: {old} → {new}")
    return new
