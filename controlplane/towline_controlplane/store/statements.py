"""SQL as text, for the hot statements that go to the driver itself: written once, in the words of each dialect.

`{keys}` is a table `k` of the run and node ids in a JSON parameter, `{ids}` the list of strings in one; `{lock}` and
`{claim}` lock the rows of `r` and `s` where the dialect has row locks. Parameters are question marks.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TypeVar

Item = TypeVar("Item", str, tuple[str, str])

_WORDS: Mapping[str, Mapping[str, str]] = {
    "sqlite": {
        "keys": "(SELECT json_extract(value, '$[0]') AS run_id, json_extract(value, '$[1]') AS node_id"
        " FROM json_each(?)) AS k",
        "ids": "(SELECT value FROM json_each(?))",
        "lock": "",
        "claim": "",
    },
}


class Statement:
    """A hot statement; `text` holds it by dialect."""

    def __init__(self, template: str) -> None:
        self.text = {dialect: template.format_map(words) for dialect, words in _WORDS.items()}


def as_json(items: Iterable[Item]) -> str:
    """Returns the parameter for `{ids}` or `{keys}`: each item once and in order, as locks are to be taken."""
    return json.dumps(sorted(set(items)))


def listed(names: Iterable[str], alias: str) -> str:
    """Returns a select list."""
    return ", ".join(f"{alias}.{name}" for name in names)


def insert(table: str, names: Iterable[str]) -> str:
    """Returns an INSERT of one row whose parameters are its columns."""
    names = tuple(names)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608


def update(table: str, names: Iterable[str], key: Iterable[str]) -> str:
    """Returns an UPDATE of one row whose parameters are the columns to set, then those of the key."""
    settings = ", ".join(f"{name} = ?" for name in names)
    return f"UPDATE {table} SET {settings} WHERE {' AND '.join(f'{name} = ?' for name in key)}"  # noqa: S608


def upsert(table: str, names: Iterable[str], key: Iterable[str]) -> str:
    """Returns an INSERT that, if the key is there, updates the other columns instead."""
    names, key = tuple(names), tuple(key)
    settings = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
    return f"{insert(table, names)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {settings}"
