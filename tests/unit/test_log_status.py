"""What is said of the log of an attempt, for each thing that can be known of it."""

import pytest

from towline_controlplane.log_status import LogCondition, LogStatus, log_status
from towline_controlplane.model import Attempt, AttemptState, Usage
from towline_controlplane.store.log_archives import ArchivedLog
from towline_controlplane.store.logs import LogSize

GROWING, ARRIVING = LogCondition.GROWING, LogCondition.ARRIVING
COMPLETE, INCOMPLETE, MISMATCHED = LogCondition.COMPLETE, LogCondition.INCOMPLETE, LogCondition.MISMATCHED
RUNNING, SUCCEEDED, LOST, CANCELLED = (
    AttemptState.RUNNING,
    AttemptState.SUCCEEDED,
    AttemptState.LOST,
    AttemptState.CANCELLED,
)


def attempt(
    state: AttemptState,
    announced: int | None = None,
    *,
    end: int | None = 100,
    digest: str = "d",
    start: int | None = 1,
) -> Attempt:
    return Attempt(
        run_id="r",
        node_id="a",
        number=1,
        execution_key="k",
        state=state,
        agent_id="agent",
        epoch=1,
        token_hash="t",
        session_id="s",
        offer_expire_time=1,
        create_time=1,
        start_time=start,
        end_time=None if state is RUNNING else end,
        report_digest=None if announced is None else "said",
        usage=Usage(log_bytes=announced or 0, log_digest="" if announced is None else digest),
    )


def archived(size: int, digest: str = "d") -> ArchivedLog:
    return ArchivedLog(("r", "a", 1), size, 1, "o", 1, 1, 1, 1, digest)


CASES: dict[str, tuple[Attempt, LogSize | None, ArchivedLog | None, LogStatus]] = {
    "not begun": (attempt(RUNNING), None, None, LogStatus(GROWING, None, 0, None)),
    "running": (attempt(RUNNING), LogSize(7, final=False), None, LogStatus(GROWING, None, 7, None)),
    "nothing written": (attempt(SUCCEEDED, 0), None, None, LogStatus(COMPLETE, 0, 0, None)),
    "on its way": (
        attempt(SUCCEEDED, 9),
        LogSize(7, final=False),
        None,
        LogStatus(ARRIVING, 9, 7, (7, 9)),
    ),
    "given up": (
        attempt(SUCCEEDED, 9, end=40),
        LogSize(7, final=False),
        archived(7),
        LogStatus(INCOMPLETE, 9, 7, (7, 9), archived=True),
    ),
    "all in": (attempt(SUCCEEDED, 9), LogSize(9, final=True), None, LogStatus(COMPLETE, 9, 9, None)),
    "verified": (
        attempt(SUCCEEDED, 9),
        LogSize(9, final=True),
        archived(9),
        LogStatus(COMPLETE, 9, 9, None, verified=True, archived=True),
    ),
    "an agent without digests": (
        attempt(SUCCEEDED, 9, digest=""),
        LogSize(9, final=True),
        archived(9),
        LogStatus(COMPLETE, 9, 9, None, archived=True),
    ),
    "other bytes": (
        attempt(SUCCEEDED, 9),
        LogSize(9, final=True),
        archived(9, "x"),
        LogStatus(MISMATCHED, 9, 9, None, archived=True),
    ),
    "too many bytes": (
        attempt(SUCCEEDED, 9),
        LogSize(11, final=False),
        None,
        LogStatus(MISMATCHED, 9, 11, None),
    ),
    "an end before the end": (
        attempt(SUCCEEDED, 9),
        LogSize(7, final=True),
        None,
        LogStatus(MISMATCHED, 9, 7, (7, 9)),
    ),
    "archived in part": (
        attempt(SUCCEEDED, 9),
        LogSize(9, final=True),
        archived(7),
        LogStatus(COMPLETE, 9, 9, None),
    ),
    "agent gone": (
        attempt(LOST),
        LogSize(7, final=False),
        None,
        LogStatus(INCOMPLETE, None, 7, (7, None)),
    ),
    "agent gone before a line": (attempt(LOST), None, None, LogStatus(INCOMPLETE, None, 0, (0, None))),
    "agent gone after the last line": (
        attempt(LOST),
        LogSize(7, final=True),
        None,
        LogStatus(COMPLETE, 7, 7, None),
    ),
    "lost, and said so": (
        attempt(LOST, 7),
        LogSize(7, final=True),
        None,
        LogStatus(COMPLETE, 7, 7, None),
    ),
    "never ran": (attempt(CANCELLED, start=None), None, None, LogStatus(COMPLETE, 0, 0, None)),
}


@pytest.mark.parametrize("name", CASES)
def test_status(name: str) -> None:
    row, stored, archive, expected = CASES[name]
    assert log_status(row, stored, archive, given_up_before=50) == expected
