"""The floor under group commit: bare statements for complete and lease, on both databases.

python -m bench.raw_statements [sqlite,postgres]
"""

import sys
from typing import Any, Protocol

from bench.dags import fan
from bench.figures import Cost, spread, table
from bench.raw_postgres import RawPostgres
from bench.raw_sqlite import RawSqlite
from bench.store import Store, stores

BATCHES = (1, 16, 128)
_WIDTH = 8
_RUNS = 1_500
_TRIALS = 5
_MOST_SECONDS = 1.0


class Raw(Protocol):
    """Bare statements on one database."""

    def fill(self, runs: int) -> None:
        """Replaces all runs by new ones."""
        ...

    def measure(self, batch: int, most_seconds: float) -> Cost:
        """Completes and leases `batch` steps a round."""
        ...

    def close(self) -> None:
        """Lets the database go."""
        ...


def open_raw(store: Store) -> Raw:
    """Returns the bare statements on a store, in tables of their own."""
    document: dict[str, Any] = fan(_WIDTH)
    index = {node["id"]: number for number, node in enumerate(document["nodes"])}
    edges = [(index[edge["from"]], index[edge["to"]]) for edge in document["edges"]]
    in_degrees = [sum(target == number for _, target in edges) for number in index.values()]
    if store.url.startswith("sqlite"):
        return RawSqlite(store.url.removeprefix("sqlite:///") + ".raw", in_degrees, edges)
    return RawPostgres(store.url, in_degrees, edges)


def main() -> None:
    rows: list[list[str]] = []
    for store in stores(sys.argv[1] if len(sys.argv) > 1 else "sqlite,postgres"):
        raw = open_raw(store)
        cells = [store.name]
        for batch in BATCHES:
            costs: list[Cost] = []
            for _ in range(_TRIALS):
                raw.fill(_RUNS)
                costs.append(raw.measure(batch, _MOST_SECONDS))
            cells.append(spread(cost.per_second for cost in costs))
        rows.append(cells)
        raw.close()
    print(table(["steps/s, complete and lease", *(f"N={batch}" for batch in BATCHES)], rows))


if __name__ == "__main__":
    main()
