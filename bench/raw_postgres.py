"""The least that PostgreSQL does for a step: one table of steps, no engine, no history. The floor, not a product."""

from collections.abc import Iterable, Sequence
from typing import Any, LiteralString

import psycopg

from bench.figures import Cost, Stopwatch

_SCHEMA: tuple[LiteralString, ...] = (
    "CREATE TABLE raw_runs (id BIGINT PRIMARY KEY, open_steps INT NOT NULL) WITH (fillfactor = 70)",
    "CREATE TABLE raw_edges (source INT, target INT, PRIMARY KEY (source, target))",
    """CREATE TABLE raw_steps (
        run_id BIGINT, id INT, state SMALLINT NOT NULL, pending INT NOT NULL, token BIGINT NOT NULL,
        PRIMARY KEY (run_id, id)
    ) WITH (fillfactor = 70)""",
    "CREATE INDEX raw_steps_ready ON raw_steps (run_id, id) WHERE state = 1",
)
_LOCK = "SELECT id FROM raw_runs WHERE id = ANY(%s::bigint[]) ORDER BY id FOR UPDATE"
_COMPLETE = """
WITH done AS (
    UPDATE raw_steps s SET state = 3
    FROM unnest(%s::bigint[], %s::int[], %s::bigint[]) AS t (r, s, k)
    WHERE s.run_id = t.r AND s.id = t.s AND s.state = 2 AND s.token = t.k
    RETURNING s.run_id, s.id
), opened AS (
    UPDATE raw_steps s SET pending = pending - n, state = CASE WHEN pending = n THEN 1 ELSE state END
    FROM (SELECT run_id AS r, target AS t, count(*)::int AS n FROM done JOIN raw_edges ON source = done.id
          GROUP BY 1, 2) AS g
    WHERE s.run_id = g.r AND s.id = g.t
)
UPDATE raw_runs SET open_steps = open_steps - n
FROM (SELECT run_id, count(*)::int AS n FROM done GROUP BY 1) AS g WHERE id = g.run_id
"""
_LEASE = """
WITH ready AS (
    SELECT run_id, id FROM raw_steps WHERE state = 1 ORDER BY run_id, id LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE raw_steps s SET state = 2, token = token + 1 FROM ready
WHERE s.run_id = ready.run_id AND s.id = ready.id
RETURNING s.run_id, s.id, s.token
"""


class RawPostgres:
    """Rounds of complete and lease over one connection, each of the two a transaction that is synced."""

    def __init__(self, url: str, in_degrees: Sequence[int], edges: Iterable[tuple[int, int]]) -> None:
        self._connection = psycopg.connect(url, autocommit=True, prepare_threshold=1)
        for statement in _SCHEMA:
            self._connection.execute(statement)
        with self._connection.cursor() as cursor:
            cursor.executemany("INSERT INTO raw_edges VALUES (%s, %s)", list(edges))
        self._in_degrees = in_degrees

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def fill(self, runs: int) -> None:
        """Replaces all runs by new ones."""
        self._connection.execute("TRUNCATE raw_runs, raw_steps")
        with self._connection.cursor() as cursor:
            with cursor.copy("COPY raw_runs FROM STDIN") as copy:
                for run in range(runs):
                    copy.write_row((run, len(self._in_degrees)))
            with cursor.copy("COPY raw_steps FROM STDIN") as copy:
                for run in range(runs):
                    for index, degree in enumerate(self._in_degrees):
                        copy.write_row((run, index, 0 if degree else 1, degree, 0))
        self._connection.execute("VACUUM ANALYZE raw_steps")

    def measure(self, batch: int, most_seconds: float) -> Cost:
        """Completes and leases `batch` steps a round until there are fewer, or the time is over."""
        held = self._lease(batch)
        watch, steps = Stopwatch(), 0
        while len(held) == batch:
            held = self._round(held, batch)
            steps += batch
            if (cost := watch.cost(steps)).wall > most_seconds:
                return cost
        return watch.cost(steps)

    def _round(self, held: list[tuple[Any, ...]], batch: int) -> list[tuple[Any, ...]]:
        runs, steps, tokens = (list(column) for column in zip(*held, strict=True))
        with self._connection.pipeline():
            execute = self._connection.execute
            execute("BEGIN")
            execute(_LOCK, [sorted(set(runs))], binary=True)
            execute(_COMPLETE, [runs, steps, tokens], binary=True)
            execute("COMMIT")
            leased = execute(_LEASE, [batch], binary=True)
            return leased.fetchall()

    def _lease(self, batch: int) -> list[tuple[Any, ...]]:
        return self._connection.execute(_LEASE, [batch], binary=True).fetchall()
