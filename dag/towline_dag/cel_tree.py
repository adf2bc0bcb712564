"""The syntax tree of a checked CEL expression, read from the bytes that the CEL library serializes it to.

The bytes are the published message `cel.expr.CheckedExpr`, with macros expanded: a comprehension is a Fold. Decodes
only the fields named here, and judges nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Const:
    """A literal. `text` is set for a string."""

    weight: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Name:
    """A variable or a type."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`, or `has(operand.field)`."""

    operand: "Tree"
    field: str
    is_test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator; the receiver of a method comes first."""

    function: str
    args: tuple["Tree", ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """A list or a map of expressions. `message` is set for a protobuf message."""

    items: tuple["Tree", ...]
    message: str = ""


@dataclass(frozen=True, slots=True)
class Fold:
    """A comprehension: `steps` are evaluated for each `variable` of `source`, and may read the `accumulator`."""

    variable: str
    source: "Tree"
    accumulator: str
    start: "Tree"
    steps: tuple["Tree", ...]
    result: "Tree"


Tree = Const | Name | Select | Call | Literal | Fold
Path = tuple[str, ...]


def parse(serialized: bytes) -> Tree:
    """Returns the tree of a serialized expression."""
    checked = _only(serialized, _ANY_VALUE)
    return _expression(_only(checked, _CHECKED_EXPR))


def children(tree: Tree) -> tuple[Tree, ...]:
    """Returns the expressions directly inside `tree`."""
    match tree:
        case Select():
            return (tree.operand,)
        case Call():
            return tree.args
        case Literal():
            return tree.items
        case Fold():
            return (tree.source, tree.start, *tree.steps, tree.result)
        case _:
            return ()


def path(tree: Tree, roots: frozenset[str]) -> Path | None:
    """Returns the keys from one of the `roots` to the value, when all of them stand in the source: `input.a['b']`."""
    match tree:
        case Name(name) if name in roots:
            return (name,)
        case Select(operand, key, _) | Call("_[_]", (operand, Const(_, str(key)))):
            start = path(operand, roots)
            return start and (*start, key)
        case _:
            return None


def walk(tree: Tree) -> Iterator[Tree]:
    """Yields `tree` and every expression inside it."""
    yield tree
    for child in children(tree):
        yield from walk(child)


def weight_of_text(text: str | bytes) -> int:
    """Returns what a string counts for: short ones as much as a number, long ones by their length."""
    return 1 + len(text) // 16


# Field numbers of cel/expr/checked.proto and cel/expr/syntax.proto.
_ANY_VALUE = 2
_CHECKED_EXPR = 4
_CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = range(3, 10)
_CONST_STRING, _CONST_BYTES = 6, 7


def _expression(data: bytes) -> Tree:
    for number, value in _fields(data):
        if number in _READERS:
            return _READERS[number](value)
    return Const(1)


def _const(data: bytes) -> Tree:
    for number, value in _fields(data):
        if number == _CONST_STRING:
            return Const(weight_of_text(value), value.decode())
        if number == _CONST_BYTES:
            return Const(weight_of_text(value))
    return Const(1)


def _ident(data: bytes) -> Tree:
    return Name(_only(data, 1).decode())


def _select(data: bytes) -> Tree:
    return Select(_expression(_only(data, 1)), _only(data, 2).decode(), is_test=any(n == 3 for n, _ in _fields(data)))


def _call(data: bytes) -> Tree:
    args = [(number, value) for number, value in _fields(data) if number in (1, 3)]
    return Call(_only(data, 2).decode(), tuple(_expression(value) for _, value in sorted(args, key=lambda arg: arg[0])))


def _list(data: bytes) -> Tree:
    return Literal(tuple(_expression(value) for number, value in _fields(data) if number == 1))


def _struct(data: bytes) -> Tree:
    entries = [value for number, value in _fields(data) if number == 2]
    items = tuple(_expression(value) for entry in entries for number, value in _fields(entry) if number in (3, 4))
    return Literal(items, message=_only(data, 1).decode())


def _comprehension(data: bytes) -> Tree:
    return Fold(
        variable=_only(data, 1).decode(),
        source=_expression(_only(data, 2)),
        accumulator=_only(data, 3).decode(),
        start=_expression(_only(data, 4)),
        steps=(_expression(_only(data, 5)), _expression(_only(data, 6))),
        result=_expression(_only(data, 7)),
    )


_READERS = {
    _CONST: _const,
    _IDENT: _ident,
    _SELECT: _select,
    _CALL: _call,
    _LIST: _list,
    _STRUCT: _struct,
    _COMPREHENSION: _comprehension,
}


def _only(data: bytes, wanted: int) -> bytes:
    return next((value for number, value in _fields(data) if number == wanted), b"")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the fields of a protobuf message as (number, bytes); numbers are left undecoded."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        end = start = position
        match key & 7:
            case 0:
                _, end = _varint(data, position)
            case 1:
                end = position + 8
            case 2:
                length, start = _varint(data, position)
                end = start + length
            case wire_type:
                raise ValueError(f"unexpected wire type {wire_type}")
        yield key >> 3, data[start:end]
        position = end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
