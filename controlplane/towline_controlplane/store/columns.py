"""What the tables are made of: kinds of columns, checks, and the names of constraints."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Text,
    text,
)

from towline_controlplane.model import AttemptState, RunState, StepState

RUN_ENDED = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.TIMED_OUT)
STEP_ENDED = (StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED, StepState.TIMED_OUT)
ATTEMPT_ENDED = (
    AttemptState.SUCCEEDED,
    AttemptState.FAILED,
    AttemptState.CANCELLED,
    AttemptState.TIMED_OUT,
    AttemptState.LOST,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(referred_table_name)s_fk",
        "ck": "%(table_name)s_%(constraint_name)s",
    }
)


_TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def text_column(name: str, *, null: bool = False, default: str | None = None) -> Column[str]:
    """Returns a column of text, in the order of its bytes on any database."""
    return Column(name, _TEXT, nullable=null, server_default=default)


def count(name: str, *, null: bool = False, default: str | None = None) -> Column[int]:
    """Returns a column of a small number."""
    return Column(name, Integer, nullable=null, server_default=default)


def big(name: str, *, null: bool = False, default: str | None = None) -> Column[int]:
    """Returns a column of a large number, such as a time (µs)."""
    return Column(name, BigInteger, nullable=null, server_default=default)


def flag(name: str, *, default: ColumnElement[bool] | None = None) -> Column[bool]:
    """Returns a boolean column."""
    return Column(name, Boolean, nullable=False, server_default=default)


def _values(states: Iterable[StrEnum]) -> str:
    return ", ".join(f"'{state.value}'" for state in states)


def one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    """Returns a check that a column holds one of the states."""
    return CheckConstraint(f"{column} IN ({_values(states)})", name=column)


def ended(states: Iterable[StrEnum]) -> CheckConstraint:
    """Returns a check that a row has an end time exactly if it is in one of the states."""
    return CheckConstraint(f"(end_time IS NOT NULL) = (state IN ({_values(states)}))", name="ended")


def of_run() -> ForeignKeyConstraint:
    """Returns the key that makes rows go with their run."""
    return ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE")


def partial(name: str, columns: Iterable[ColumnElement[Any]], where: str, *, unique: bool = False) -> Index:
    """Returns an index over the rows that a condition selects; a query uses it only if it says the very same."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))
