"""JSON to protobuf, guided by the descriptors.

Names every fault by its exact path, gathers up to twenty of them, and accepts the JSON names only. A reader is
compiled once per message type and then runs without looking at descriptors.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from towline_gateway.codec import scalars, well_known
from towline_gateway.codec.json_text import Json, RepeatedKeys, kind_of
from towline_gateway.codec.violations import Refused, Violations, member

M = TypeVar("M", bound=Message)
Fill = Callable[[Any, Json, str, Violations], None]


def decode(message_class: type[M], tree: Json, violations: Violations | None = None) -> M:
    """Returns the message that the JSON object stands for, or raises `InvalidFieldsError` with every fault.

    Faults that were found before, where the tree was put together, are handed in and raised with the others.
    """
    violations = Violations() if violations is None else violations
    message = message_class()
    message_fill(message.DESCRIPTOR)(message, tree, "", violations)
    violations.raise_if_any()
    return message


@cache
def message_fill(descriptor: Descriptor) -> Fill:
    """Returns what fills a message of this type from a JSON value."""
    well_known.check_known(descriptor.full_name)
    return well_known.FILLS.get(descriptor.full_name) or _MessageReader(descriptor).fill


class _MessageReader:
    """Fills messages of one type; its field readers are built on first use, so that types may refer to themselves."""

    __slots__ = ("_descriptor", "_fills", "_oneofs")

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._fills: dict[str, tuple[Fill, bool]] = {}
        self._oneofs = [
            [field.json_name for field in oneof.fields] for oneof in descriptor.oneofs if len(oneof.fields) > 1
        ]

    def fill(self, message: Message, value: Json, path: str, violations: Violations) -> None:
        """Sets every field that the JSON object names; null leaves a field unset."""
        if not isinstance(value, dict):
            violations.add(path, f"must be an object, not {kind_of(value)}")
            return
        fills = self._fills or self._compile()
        if isinstance(value, RepeatedKeys):
            for name in value.repeated:
                violations.add(member(path, name), "is given more than once")
        for name, item in value.items():
            below = f"{path}.{name}" if path else name
            known = fills.get(name)
            if known is None:
                violations.add(member(path, name), "is not a known field")
            elif item is not None or known[1]:
                known[0](message, item, below, violations)
        for names in self._oneofs:
            self._check_oneof(names, value, path, violations)

    def _compile(self) -> dict[str, tuple[Fill, bool]]:
        self._fills = {field.json_name: (_field_fill(field), _takes_null(field)) for field in self._descriptor.fields}
        return self._fills

    @staticmethod
    def _check_oneof(names: list[str], value: dict[str, Json], path: str, violations: Violations) -> None:
        given = [name for name in names if value.get(name) is not None]
        for name in given[1:]:
            violations.add(member(path, name), f"excludes {given[0]}, and both are given")


def is_map(field: FieldDescriptor) -> bool:
    """Tells whether the field is written as a JSON object with free names."""
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _takes_null(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.full_name == well_known.VALUE and not field.is_repeated)


def _field_fill(field: FieldDescriptor) -> Fill:
    if is_map(field):
        return _map_fill(field)
    if field.message_type:
        below = message_fill(field.message_type)
        return _messages_fill(field.name, below) if field.is_repeated else _message_fill(field.name, below)
    read = scalars.reader(field)
    return _scalars_fill(field.name, read) if field.is_repeated else _scalar_fill(field.name, read)


def _scalar_fill(name: str, read: scalars.Reader) -> Fill:
    def fill(message: Message, value: Json, path: str, violations: Violations) -> None:
        try:
            setattr(message, name, read(value))
        except Refused as refusal:
            violations.add(path, str(refusal))

    return fill


def _message_fill(name: str, below: Fill) -> Fill:
    def fill(message: Message, value: Json, path: str, violations: Violations) -> None:
        child: Message = getattr(message, name)
        child.SetInParent()
        below(child, value, path, violations)

    return fill


def _scalars_fill(name: str, read: scalars.Reader) -> Fill:
    def fill(message: Message, value: Json, path: str, violations: Violations) -> None:
        target = getattr(message, name)
        for index, item in enumerate(_items(value, path, violations)):
            try:
                target.append(read(item))
            except Refused as refusal:
                violations.add(f"{path}[{index}]", str(refusal))

    return fill


def _messages_fill(name: str, below: Fill) -> Fill:
    def fill(message: Message, value: Json, path: str, violations: Violations) -> None:
        target = getattr(message, name)
        for index, item in enumerate(_items(value, path, violations)):
            below(target.add(), item, f"{path}[{index}]", violations)

    return fill


def _items(value: Json, path: str, violations: Violations) -> list[Json]:
    if isinstance(value, list):
        return value
    violations.add(path, f"must be an array, not {kind_of(value)}")
    return []


def _map_fill(field: FieldDescriptor) -> Fill:
    assert field.message_type is not None
    key, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    read_key = scalars.reader(key)
    put = _map_put(value_field)

    def fill(message: Message, value: Json, path: str, violations: Violations) -> None:
        if not isinstance(value, dict):
            violations.add(path, f"must be an object, not {kind_of(value)}")
            return
        for name in value.repeated if isinstance(value, RepeatedKeys) else ():
            violations.add(member(path, name), "is given more than once")
        target = getattr(message, field.name)
        for name, item in value.items():
            below = member(path, name)
            try:
                put(target, read_key(scalars.json_of_text(key, name)), item, below, violations)
            except Refused as refusal:
                violations.add(below, str(refusal))

    return fill


def _map_put(field: FieldDescriptor) -> Callable[[Any, Any, Json, str, Violations], None]:
    if field.message_type:
        below = message_fill(field.message_type)

        def put_message(target: Any, key: Any, value: Json, path: str, violations: Violations) -> None:
            below(target[key], value, path, violations)

        return put_message
    read = scalars.reader(field)

    def put_scalar(target: Any, key: Any, value: Json, path: str, violations: Violations) -> None:
        target[key] = read(value)

    return put_scalar
