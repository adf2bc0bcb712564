"""Expressions of users: CEL over `input`, `run` and `nodes.<id>`, compiled once, evaluated on plain JSON values.

An expression is data: it reaches nothing but its scope, and its length, nesting, work and result are bounded. JSON's
numbers map to CEL's `int` when they are written without a fraction and to `double` otherwise; the two compare with each
other (`input.count > 10` holds for 10.5 and for 11), but arithmetic needs one kind: `double(input.price) * 1.5`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from cel_expr_python import cel

from towline_dag import cel_tree, cost
from towline_dag.cel_tree import Fold, Literal, Path, Tree
from towline_dag.limits import (
    MAX_COMPREHENSIONS,
    MAX_EXPRESSION_CHARACTERS,
    MAX_INLINE_OUTPUT_BYTES,
    MAX_RESULT_BYTES,
)

_ROOTS = frozenset({"input", "run", "nodes"})
_OF_RUN = ("id", "workflowId", "scheduledTime")
_OF_NODE = ("state", "output")
_ENVIRONMENT = cel.NewEnv(variables=dict.fromkeys(sorted(_ROOTS), cel.Type.DYN))
_LARGEST_INTEGER = 2**53 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Keys = dict[str, "Keys"]
"""Which keys of an object are read; none means all of it."""


class ExpressionError(Exception):
    """An expression, or a template that holds one, cannot be compiled or evaluated; the message is for its author.

    `place` leads from the whole template to the string that is wrong: `.headers.auth`, `.items[2]`.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place


def run_in_scope(run_id: str, workflow_id: str, scheduled_time: int | None) -> dict[str, object]:
    """Returns what expressions see of a run; its scheduled time as text, which `timestamp()` reads."""
    time = None if scheduled_time is None else _EPOCH + timedelta(microseconds=scheduled_time)
    shown = None if time is None else time.isoformat().replace("+00:00", "Z")
    return {"id": run_id, "workflowId": workflow_id, "scheduledTime": shown}


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression sees. `nodes` maps a node id to `{"state", "output"}`.

    The outputs of the nodes in `withheld` are too large to be read.
    """

    input: object
    run: Mapping[str, object]
    nodes: Mapping[str, object]
    withheld: frozenset[str] = frozenset()


class Program:
    """A compiled expression. `references` are the nodes that it names, which its scope must have."""

    __slots__ = ("_cost", "_expression", "_keys", "_outputs", "references", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self._expression = _compile(source)
        tree = cel_tree.parse(self._expression.serialize())
        _check(tree)
        paths = list(_paths(tree))
        _check_names(paths)
        self.references = frozenset(path[1] for path in paths if path[0] == "nodes")
        self._keys = _keys(paths)
        self._outputs = [node for node, keys in self._keys.get("nodes", {}).items() if not keys or "output" in keys]
        self._cost = _cost(tree)

    def position(self, node_id: str) -> str:
        """Returns line and column of the first place that names a node, as `line:column`, counted from 1."""
        name = re.escape(node_id)
        found = re.search(rf"nodes\s*(?:\.\s*{name}\b|\[\s*['\"]{name}['\"])", self.source)
        start = found.start() if found else 0
        return f"{self.source.count(chr(10), 0, start) + 1}:{start - self.source.rfind(chr(10), 0, start)}"

    def evaluate(self, scope: Scope) -> object:
        """Returns the value as JSON, an integral number always as int; raises ExpressionError."""
        for node_id in self._outputs:
            if node_id in scope.withheld:
                limit = f"{MAX_INLINE_OUTPUT_BYTES // 1024} KiB"
                raise ExpressionError(f"the output of {node_id!r} is larger than the {limit} that expressions can read")
        data = self._data(scope)
        if cost.evaluate(self._cost, data) > cost.MAX_COST:
            raise ExpressionError("it would take too long on values of this size")
        try:
            value = self._expression.eval(data=data)
        except RuntimeError as error:  # the library raises what stops an evaluation: budgets, text that is not Unicode
            raise ExpressionError(_plain(str(error))) from error
        return _Conversion().to_json(value)

    def evaluate_condition(self, scope: Scope) -> bool:
        """Returns the value, which must be a boolean; raises ExpressionError."""
        value = self.evaluate(scope)
        if isinstance(value, bool):
            return value
        raise ExpressionError(f"a condition must yield true or false, not {_KINDS.get(type(value), 'a number')}")

    def _data(self, scope: Scope) -> dict[str, object]:
        """Leaves out what is not read: the library copies all that it is given."""
        return {root: _narrow(getattr(scope, root), keys) for root, keys in self._keys.items()}


@lru_cache(maxsize=4096)
def compile_expression(source: str) -> Program:
    """Returns the program of an expression; raises ExpressionError, with line and column where they are known."""
    return Program(source)


def matches(text: str, pattern: str) -> bool:
    """Tells whether a regular expression (RE2, linear in time) is found in a text; raises ExpressionError."""
    scope = Scope(input={"text": text, "pattern": pattern}, run={}, nodes={})
    return compile_expression("input.text.matches(input.pattern)").evaluate_condition(scope)


def compile_condition(source: str) -> Program:
    """Returns the program of an expression that may yield true or false; raises ExpressionError if it never does."""
    program = compile_expression(source)
    kind = _compile(source).return_type()
    if kind not in (cel.Type.BOOL, cel.Type.DYN):
        raise ExpressionError(f"1:1: a condition must yield true or false; this one yields {kind.name().lower()}")
    return program


def _compile(source: str) -> cel.Expression:
    if not source.strip():
        raise ExpressionError("it is empty")
    if len(source) > MAX_EXPRESSION_CHARACTERS:
        raise ExpressionError(f"it has {len(source)} characters; the limit is {MAX_EXPRESSION_CHARACTERS}")
    try:
        return _ENVIRONMENT.compile(source)
    except TypeError as error:
        raise ExpressionError("it is not valid Unicode") from error
    except RuntimeError as error:
        raise ExpressionError(_plain(str(error))) from error


def _check(tree: Tree) -> None:
    folds = 0
    for part in cel_tree.walk(tree):
        if isinstance(part, Literal) and part.message:
            raise ExpressionError(f"messages such as {part.message} are not available")
        if isinstance(part, Fold):
            folds += 1
            if part.variable in _ROOTS:
                raise ExpressionError(f"{part.variable!r} cannot be the name of a variable")
    if folds > MAX_COMPREHENSIONS:
        message = f"it has {folds} of map, filter, all, exists and exists_one; the limit is {MAX_COMPREHENSIONS}"
        raise ExpressionError(message)


def _paths(tree: Tree) -> list[Path]:
    path = cel_tree.path(tree, _ROOTS)
    if path is None:
        return [found for child in cel_tree.children(tree) for found in _paths(child)]
    if path == ("nodes",):
        raise ExpressionError("name each node where it is used: nodes.<id> or nodes['<id>']")
    return [path]


def _check_names(paths: list[Path]) -> None:
    for path in paths:
        match path:
            case ("run", name, *_) if name not in _OF_RUN:
                raise ExpressionError(f"a run has {', '.join(_OF_RUN)}, not {name!r}")
            case ("nodes", _, name, *_) if name not in _OF_NODE:
                raise ExpressionError(f"a node has {' and '.join(_OF_NODE)}, not {name!r}")
            case _:
                continue


def _keys(paths: list[Path]) -> Keys:
    keys: Keys = {}
    whole: set[Path] = set()
    for path in sorted(paths):
        if any(path[:length] in whole for length in range(1, len(path))):
            continue
        whole.add(path)
        level = keys
        for key in path:
            level = level.setdefault(key, {})
    return keys


def _narrow(value: object, keys: Keys) -> object:
    if not keys or not isinstance(value, Mapping):
        return value
    entries = cast("Mapping[str, object]", value)
    return {key: _narrow(entries[key], deeper) for key, deeper in keys.items() if key in entries}


def _cost(tree: Tree) -> cost.Polynomial:
    try:
        return cost.bound(tree, _ROOTS)
    except cost.TooComplex as error:
        raise ExpressionError("it combines too many values") from error


class _Conversion:
    """Turns a CEL value into JSON, stopping at the largest size allowed."""

    def __init__(self) -> None:
        self._left = MAX_RESULT_BYTES

    def to_json(self, value: cel.Value) -> object:
        kind = value.type()
        plain: object = value.value()
        if kind in (cel.Type.ERROR, cel.Type.UNKNOWN):
            raise ExpressionError(_plain(str(plain)))
        match plain:
            case None | bool():
                self._spend(5)
                return plain
            case int() | float():
                self._spend(8)
                return _number(plain)
            case str():
                self._spend(len(plain.encode()) + 2)
                return plain
            case list():
                return self._list(cast("list[cel.Value]", plain))
            case dict():
                return self._object(cast("dict[object, cel.Value]", plain))
            case _:
                raise ExpressionError(
                    f"it yields a value of type {kind.name().lower()}, which JSON does not have; use string(…)"
                )

    def _list(self, items: list[cel.Value]) -> list[object]:
        self._spend(2 + len(items))
        return [self.to_json(item) for item in items]

    def _object(self, entries: dict[Any, cel.Value]) -> dict[str, object]:
        self._spend(2 + 2 * len(entries))
        # Sorted, because the order of CEL's maps differs from one process to the next.
        names = sorted(map(self._key, entries))
        return {name: self.to_json(entries[name]) for name in names}

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise ExpressionError(f"it yields an object with the key {key!r}; the keys of JSON objects are strings")
        self._spend(len(key.encode()) + 2)
        return key

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ExpressionError(f"its value is larger than {MAX_RESULT_BYTES // 1024} KiB")


def _number(value: float) -> int | float:
    if isinstance(value, float) and not value.is_integer():
        if value - value != 0:
            raise ExpressionError(f"it yields {value}, which JSON does not have")
        return value
    if abs(value) > _LARGEST_INTEGER and isinstance(value, int):
        raise ExpressionError(f"it yields {value}, which is beyond the integers that JSON keeps exactly (±(2^53−1))")
    return int(value) if abs(value) <= _LARGEST_INTEGER else value


_KINDS: Mapping[type, str] = {str: "a string", list: "a list", dict: "an object", type(None): "null"}


_LIBRARY_NAMES = re.compile(
    r"^[A-Z_]+: |ERROR: <input>:|Syntax error: | \(in container ''\)| expecting \{.*\}| \[[A-Z_]+\]$"
)
_PLAINER: Mapping[str, str] = {
    "recursion": "it is nested too deeply",
    "Iteration budget": "it visits more than 10,000 elements",
    "Applying SELECT": "a field is selected from a value that is not an object",
    "construction from null": "it reads text that is not valid Unicode",
}


def _plain(text: str) -> str:
    """Takes the first message out of what the library says, and its status names, file name and drawing off."""
    for mark, message in _PLAINER.items():
        if mark in text:
            return message
    message = _LIBRARY_NAMES.sub("", re.split(r"\n(?: \||ERROR:)", text, maxsplit=1)[0])
    message = message.replace("Key not found in map :", "there is no key")
    if "int" in message and "double" in message:
        return f"{message}: convert one side with double(…) or int(…)"
    return message
