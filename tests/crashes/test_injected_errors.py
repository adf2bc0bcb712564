"""The database fails at any single thing that is asked of it: callers see Unavailable or success, never a wrong state.

The run ends as without the failure once they have repeated what they asked for (F4, F5).
"""

import asyncio
import itertools
import sqlite3
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from faults import Faults
from lives import Stage
from plots import PLOTS, Cast, Plot
from test_crash_points import cast_of, check

Strike = Callable[[Any, bool], None]
FAILING = [(plot, every) for plot in PLOTS for name, every in (("retry", True), ("limit", False)) if plot.name == name]
"""One with every kind of failure, one with the worst kind only."""


def sqlite_fails(name: str, *, after_commit: bool = False) -> Strike:
    def strike(_driver: object, committed: bool) -> None:
        if not committed or after_commit:
            error = sqlite3.OperationalError(name)
            error.sqlite_errorname = name
            raise error

    return strike


def server_rolls_back(error: type[psycopg.Error]) -> Strike:
    def strike(_driver: object, committed: bool) -> None:
        if not committed:
            raise error(error.__name__)

    return strike


def connection_breaks(driver: Any, _committed: bool) -> None:
    """Whether a commit that was under way is done, nobody here can tell."""
    driver.close()
    raise psycopg.OperationalError("the connection is lost")


FAILURES: dict[str, dict[str, Strike]] = {
    "sqlite": {
        "busy": sqlite_fails("SQLITE_BUSY"),
        "full": sqlite_fails("SQLITE_FULL"),
        "input or output": sqlite_fails("SQLITE_IOERR_FSYNC", after_commit=True),
    },
    "postgresql": {
        "deadlock": server_rolls_back(psycopg.errors.DeadlockDetected),
        "read-only": server_rolls_back(psycopg.errors.ReadOnlySqlTransaction),
        "connection": connection_breaks,
    },
}


@pytest.mark.parametrize(("plot", "every"), FAILING, ids=[plot.name for plot, _ in FAILING])
def test_a_failure_at_any_point_is_survived(stage: Stage, plot: Plot, every: bool) -> None:
    async def scenario(first: Cast, strike: Strike, runs_before: int) -> int:
        for at in itertools.count(1):
            faults, cast = Faults(at, strike), Cast(plot, first.version, first.agent)
            life = stage.life(faults)
            assert await life.survives(cast.play(life))
            await check(life, cast, runs_before + at)
            if not faults.struck:
                return runs_before + at
        raise AssertionError

    async def every_failure() -> None:
        first, runs = await cast_of(stage.life(), plot), 0
        kinds = list(FAILURES[stage.backend.dialect].values())
        for strike in kinds if every else kinds[-1:]:
            runs = await scenario(first, strike, runs)

    asyncio.run(every_failure())
