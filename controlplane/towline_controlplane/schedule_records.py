"""Schedules as they are recorded, and what became of the times at which they were due.

Times are µs since the epoch, by the database's clock. A *time* of a schedule is a moment of its timetable, whenever it
is acted upon.
"""

from collections.abc import Mapping
from enum import StrEnum

from towline_controlplane.frozen import frozen
from towline_controlplane.model import RunState


class Overlap(StrEnum):
    """What happens at a time while a run of the schedule is open."""

    SKIP = "SKIP"
    BUFFER_ONE = "BUFFER_ONE"
    ALLOW_ALL = "ALLOW_ALL"
    CANCEL_OTHER = "CANCEL_OTHER"


class Outcome(StrEnum):
    """What became of a time."""

    STARTED = "STARTED"
    BUFFERED = "BUFFERED"
    SKIPPED = "SKIPPED"
    MISSED = "MISSED"
    FAILED = "FAILED"


class Origin(StrEnum):
    """What made a time come."""

    TIMETABLE = "TIMETABLE"
    BACKFILL = "BACKFILL"
    TRIGGER = "TRIGGER"


@frozen
class Schedule:
    """When runs of a workflow are started, with what, and how far it is."""

    id: str
    owner_id: str
    name: str
    workflow_id: str
    version_id: str | None
    """None: the version that a run started by hand would have."""
    cron: str | None
    interval: int | None
    """µs; exactly one of the two is given."""
    time_zone: str
    input: str
    """JSON text."""
    priority: int
    labels: Mapping[str, str]
    overlap: Overlap
    catch_up_window: int
    """µs: a time that is longer ago is missed."""
    catch_up_limit: int
    """Of times that were held up, so many are acted upon, the newest."""
    jitter: int
    """µs that a run is started later at most."""
    start_time: int | None
    end_time: int | None
    paused: bool
    note: str
    revision: int
    """Counts what users change, and pauses."""
    create_time: int
    update_time: int
    next_time: int | None = None
    """The next time; None while it is paused, and at its end."""
    due_time: int | None = None
    """When the next time is acted upon."""
    buffered_time: int | None = None
    """A time whose run starts when the open one has ended."""
    failures: int = 0
    """Times in a row for which no run could be started."""
    error_code: str = ""
    error_message: str = ""
    """Why the last of them could not."""


@frozen
class Firing:
    """What became of a time of a schedule."""

    schedule_id: str
    scheduled_time: int
    outcome: Outcome
    origin: Origin
    started_run_id: str | None
    reason: str
    create_time: int
    run_state: RunState | None = None
    """Of the run, while it exists."""


@frozen
class OpenRun:
    """A run of a schedule that has not ended."""

    id: str
    cancel_requested: bool
