"""The least that SQLite does for a step: one table of steps, no engine, no history. The floor, not a product."""

import json
import sqlite3
from collections.abc import Iterable, Sequence

from bench.figures import Cost, Stopwatch

_SCHEMA = """
CREATE TABLE raw_runs (id INTEGER PRIMARY KEY, open_steps INTEGER NOT NULL);
CREATE TABLE raw_edges (source INTEGER, target INTEGER, PRIMARY KEY (source, target)) WITHOUT ROWID;
CREATE TABLE raw_steps (
    run_id INTEGER, id INTEGER, state INTEGER NOT NULL, pending INTEGER NOT NULL, token INTEGER NOT NULL,
    PRIMARY KEY (run_id, id)
) WITHOUT ROWID;
CREATE INDEX raw_steps_ready ON raw_steps (run_id, id) WHERE state = 1;
"""
_READY, _LEASED, _DONE = 1, 2, 3
_COMPLETE = f"""
UPDATE raw_steps SET state = {_DONE}
FROM (SELECT json_extract(value, '$[0]') AS r, json_extract(value, '$[1]') AS s, json_extract(value, '$[2]') AS t
      FROM json_each(?))
WHERE run_id = r AND id = s AND state = {_LEASED} AND token = t
RETURNING run_id, id
"""
_OPEN = f"""
UPDATE raw_steps SET pending = pending - n, state = CASE WHEN pending = n THEN {_READY} ELSE state END
FROM (SELECT json_extract(value, '$[0]') AS r, target AS s, count(*) AS n
      FROM json_each(?) JOIN raw_edges ON source = json_extract(value, '$[1]') GROUP BY 1, 2)
WHERE run_id = r AND id = s
"""
_COUNT = """
UPDATE raw_runs SET open_steps = open_steps - n
FROM (SELECT json_extract(value, '$[0]') AS r, count(*) AS n FROM json_each(?) GROUP BY 1) WHERE id = r
"""
_LEASE = f"""
UPDATE raw_steps SET state = {_LEASED}, token = token + 1
WHERE (run_id, id) IN (SELECT run_id, id FROM raw_steps WHERE state = {_READY} ORDER BY run_id, id LIMIT ?)
RETURNING run_id, id, token
"""


class RawSqlite:
    """Rounds of complete and lease on a file, each of the two a transaction that is synced."""

    def __init__(self, path: str, in_degrees: Sequence[int], edges: Iterable[tuple[int, int]]) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536", "wal_autocheckpoint = 8000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)
        self._connection.executemany("INSERT INTO raw_edges VALUES (?, ?)", list(edges))
        self._in_degrees = in_degrees

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def fill(self, runs: int) -> None:
        """Replaces all runs by new ones."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("DELETE FROM raw_steps")
        self._connection.execute("DELETE FROM raw_runs")
        self._connection.executemany(
            "INSERT INTO raw_runs VALUES (?, ?)", [(run, len(self._in_degrees)) for run in range(runs)]
        )
        self._connection.executemany(
            "INSERT INTO raw_steps VALUES (?, ?, ?, ?, 0)",
            [(run, i, 0 if n else _READY, n) for run in range(runs) for i, n in enumerate(self._in_degrees)],
        )
        self._connection.execute("COMMIT")

    def measure(self, batch: int, most_seconds: float) -> Cost:
        """Completes and leases `batch` steps a round until there are fewer, or the time is over."""
        held = self._lease(batch)
        watch, steps = Stopwatch(), 0
        while len(held) == batch:
            self._complete(held)
            held = self._lease(batch)
            steps += batch
            if (cost := watch.cost(steps)).wall > most_seconds:
                return cost
        return watch.cost(steps)

    def _complete(self, held: list[tuple[int, int, int]]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        execute("SELECT id FROM raw_runs WHERE id IN (SELECT value FROM json_each(?))", [_json(r for r, _, _ in held)])
        done = _json(execute(_COMPLETE, [_json(held)]).fetchall())
        execute(_OPEN, [done])
        execute(_COUNT, [done])
        execute("COMMIT")

    def _lease(self, batch: int) -> list[tuple[int, int, int]]:
        self._connection.execute("BEGIN IMMEDIATE")
        held = self._connection.execute(_LEASE, [batch]).fetchall()
        self._connection.execute("COMMIT")
        return held


def _json(items: Iterable[object]) -> str:
    return json.dumps(list(items))
