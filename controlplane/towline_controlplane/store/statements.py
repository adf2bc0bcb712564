"""SQL as text, for the hot statements that go to the driver itself: written once, in the words of each dialect.

In the template of a query `{keys}` is a table `k` of the run and node ids in a parameter from `as_json`, `{ids}` the
list of strings in one, and `{lock}` locks the rows of `r` where the dialect has row locks. Parameters are question
marks.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from towline_controlplane.store import tables

Item = TypeVar("Item", str, tuple[str, str])

_WORDS: Mapping[str, Mapping[str, str]] = {
    "sqlite": {
        "keys": "(SELECT json_extract(value, '$[0]') AS run_id, json_extract(value, '$[1]') AS node_id"
        " FROM json_each(?)) AS k",
        "ids": "(SELECT value FROM json_each(?))",
        "lock": "",
    },
    "postgresql": {
        "keys": "(SELECT value ->> 0 AS run_id, value ->> 1 AS node_id FROM json_array_elements(?::json)) AS k",
        "ids": "(SELECT json_array_elements_text(?::json))",
        # Not the stronger FOR UPDATE: that one would wait for everybody who writes a row that refers to the run.
        "lock": "FOR NO KEY UPDATE OF r",
    },
}


class Statement:
    """A hot query; `text` holds it by dialect."""

    def __init__(self, template: str) -> None:
        self.text = {dialect: template.format_map(words) for dialect, words in _WORDS.items()}
        self.text["postgresql"] = self.text["postgresql"].replace("%", "%%").replace("?", "%s")


@dataclass(frozen=True, slots=True)
class ManyRows:
    """A hot statement that writes many rows; `text` holds it by dialect.

    For SQLite the parameters are the columns of one row, and it runs once for each. For PostgreSQL they are arrays, one
    for each column, and it runs once.
    """

    text: Mapping[str, str]
    types: Sequence[str]
    """Of the columns, in the words of PostgreSQL."""


_NUL = json.dumps("\0").strip('"')

Batch = tuple[ManyRows, Sequence[Sequence[object]]]
"""A statement and the rows it is for."""


def as_json(items: Iterable[Item]) -> str:
    """Returns the parameter for `{ids}` or `{keys}`: each item once and in order, as locks are to be taken.

    What holds a NUL is left out: no stored text does, and PostgreSQL cannot read it.
    """
    wanted = sorted(set(items))
    text = json.dumps(wanted)
    return json.dumps([item for item in wanted if "\0" not in "".join(item)]) if _NUL in text else text


def listed(names: Iterable[str], alias: str) -> str:
    """Returns a select list."""
    return ", ".join(f"{alias}.{name}" for name in names)


def insert(table: str, names: Iterable[str]) -> ManyRows:
    """Returns an INSERT of rows that have these columns."""
    return _insert(table, tuple(names), "")


def insert_if_absent(table: str, names: Iterable[str]) -> ManyRows:
    """Returns an INSERT that leaves out the rows whose key is taken."""
    return _insert(table, tuple(names), " ON CONFLICT DO NOTHING")


def upsert(table: str, names: Iterable[str], key: Iterable[str], only_if: str = "true") -> ManyRows:
    """Returns an INSERT that, if the key is there, updates the other columns instead, `only_if` the old row allows."""
    names, key = tuple(names), tuple(key)
    settings = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
    return _insert(table, names, f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {settings} WHERE {only_if}")


def update(table: str, names: Iterable[str], key: Iterable[str], only_if: str = "true") -> ManyRows:
    """Returns an UPDATE by key, `only_if` the old row `t` allows; the rows have the columns to set, then the key."""
    names, key = tuple(names), tuple(key)
    types = _types(table, (*names, *key))
    each = ", ".join(f"{name} = ?" for name in names)
    found = " AND ".join(f"t.{name} = ?" for name in key)
    every = ", ".join(f"{name} = v.{name}" for name in names)
    joined = " AND ".join(f"t.{name} = v.{name}" for name in key)
    rows = f"{_unnest(types)} AS v ({', '.join((*names, *key))})"
    return ManyRows(
        {
            "sqlite": f"UPDATE {table} AS t SET {each} WHERE {found} AND {only_if}",  # noqa: S608 - our own names
            "postgresql": f"UPDATE {table} AS t SET {every} FROM {rows} WHERE {joined} AND {only_if}",  # noqa: S608
        },
        types,
    )


def _insert(table: str, names: tuple[str, ...], on_conflict: str) -> ManyRows:
    types = _types(table, names)
    into = f"INSERT INTO {table} ({', '.join(names)})"
    return ManyRows(
        {
            "sqlite": f"{into} VALUES ({', '.join('?' * len(names))}){on_conflict}",
            "postgresql": f"{into} SELECT * FROM {_unnest(types)}{on_conflict}",  # noqa: S608
        },
        types,
    )


def _unnest(types: Iterable[str]) -> str:
    return f"unnest({', '.join(f'%s::{kind}[]' for kind in types)})"


def _types(table: str, names: Iterable[str]) -> tuple[str, ...]:
    columns = tables.metadata.tables[table].c
    return tuple(_TYPES[type(columns[name].type).__name__] for name in names)


_TYPES = {
    "Text": "text",
    "Integer": "integer",
    "BigInteger": "bigint",
    "Boolean": "boolean",
    "LargeBinary": "bytea",
}
