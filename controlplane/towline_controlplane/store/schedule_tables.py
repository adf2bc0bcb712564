"""The tables of schedules and of what became of their times, a part of `tables`."""

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Table

from towline_controlplane.schedule_records import Origin, Outcome, Overlap
from towline_controlplane.store.columns import big, count, flag, metadata, one_of, partial, text_column

DUE = "due_time IS NOT NULL"
BUFFERED = "buffered_time IS NOT NULL"
LIVING = "delete_time IS NULL"
DELETED = "delete_time IS NOT NULL"
"""Of the partial indexes: a query uses one only if it says the very same."""

schedules = Table(
    "schedules",
    metadata,
    text_column("id"),
    text_column("owner_id"),
    text_column("name"),
    text_column("workflow_id"),
    text_column("version_id", null=True),
    text_column("cron", null=True),
    big("interval", null=True),
    text_column("time_zone"),
    text_column("input"),
    count("priority"),
    text_column("labels"),
    text_column("overlap"),
    big("catch_up_window"),
    count("catch_up_limit"),
    big("jitter"),
    big("start_time", null=True),
    big("end_time", null=True),
    flag("paused"),
    text_column("note"),
    count("revision"),
    big("create_time"),
    big("update_time"),
    big("next_time", null=True),
    big("due_time", null=True),
    big("buffered_time", null=True),
    count("failures"),
    text_column("error_code"),
    text_column("error_message"),
    big("delete_time", null=True),
    PrimaryKeyConstraint("id"),
    one_of("overlap", Overlap),
    CheckConstraint("(cron IS NULL) <> (interval IS NULL)", name="cron_or_interval"),
    CheckConstraint("(due_time IS NULL) = (next_time IS NULL)", name="due_with_next"),
    CheckConstraint("NOT paused OR (next_time IS NULL AND buffered_time IS NULL)", name="paused_rests"),
)
# list_schedules of a user, and of all
partial("schedules_by_owner", [schedules.c.owner_id, schedules.c.create_time, schedules.c.id], LIVING)
partial("schedules_by_time", [schedules.c.create_time, schedules.c.id], LIVING)
# due_many, next_due_time
partial("schedules_due", [schedules.c.due_time, schedules.c.owner_id, schedules.c.id], DUE)
# ready_buffered
partial("schedules_buffered", [schedules.c.buffered_time, schedules.c.id], BUFFERED)
# delete_some_deleted
partial("schedules_deleted", [schedules.c.id], DELETED)

# The key is what makes a time of a schedule one run, whoever acts upon it and however often.
schedule_firings = Table(
    "schedule_firings",
    metadata,
    text_column("schedule_id"),
    big("scheduled_time"),
    text_column("outcome"),
    text_column("origin"),
    text_column("started_run_id", null=True),
    text_column("reason"),
    big("create_time"),
    PrimaryKeyConstraint("schedule_id", "scheduled_time"),
    ForeignKeyConstraint(["schedule_id"], ["schedules.id"], ondelete="CASCADE"),
    one_of("outcome", Outcome),
    one_of("origin", Origin),
    CheckConstraint("(outcome = 'STARTED') = (started_run_id IS NOT NULL)", name="started_has_run"),
)
# delete_old_firings
Index("schedule_firings_by_time", schedule_firings.c.create_time)
