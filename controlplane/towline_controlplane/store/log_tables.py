"""The tables of logs, a part of `tables`: chunks while a log arrives, then the name of the object that holds it."""

from sqlalchemy import Column, Index, LargeBinary, PrimaryKeyConstraint, Table

from towline_controlplane.store.columns import big, count, flag, metadata, of_run, partial, text_column

UNARCHIVED = "archived_size < size"
ARCHIVED = "object_digest IS NOT NULL"
"""Of the partial indexes: a query uses one only if it says the very same."""

# How many chunks a run has: its row is the lock under which they are numbered.
run_logs = Table(
    "run_logs",
    metadata,
    text_column("run_id"),
    big("chunks"),
    PrimaryKeyConstraint("run_id"),
    of_run(),
)

attempt_logs = Table(
    "attempt_logs",
    metadata,
    text_column("run_id"),
    text_column("node_id"),
    count("attempt"),
    big("size"),
    flag("final"),
    big("archived_size", default="0"),
    big("archived_chunks", default="0"),
    text_column("content_digest", null=True),
    text_column("object_digest", null=True),
    big("object_size", default="0"),
    big("index_size", default="0"),
    big("first_arrival", default="0"),
    big("last_arrival", default="0"),
    big("claimed_until", default="0"),
    PrimaryKeyConstraint("run_id", "node_id", "attempt"),
    of_run(),
)
# claim_due
partial("attempt_logs_unarchived", [attempt_logs.c.claimed_until], UNARCHIVED)
# archives_from of a run
partial("attempt_logs_archived", [attempt_logs.c.run_id, attempt_logs.c.last_arrival], ARCHIVED)
# released_blobs
partial("attempt_logs_by_object", [attempt_logs.c.object_digest], ARCHIVED)

log_chunks = Table(
    "log_chunks",
    metadata,
    text_column("run_id"),
    big("arrival"),
    text_column("node_id"),
    count("attempt"),
    big("start"),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "arrival"),
    of_run(),
)
# read_chunks of one node
Index("log_chunks_by_node", log_chunks.c.run_id, log_chunks.c.node_id, log_chunks.c.arrival)
