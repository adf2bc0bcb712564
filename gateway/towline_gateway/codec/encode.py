"""Protobuf to JSON text, guided by the descriptors, without a tree in between: streams of lines live on its speed.

Prints every field that has a value by nature (empty strings, 0, false and [] included), so that clients never miss a
field; leaves out what was not said: unset messages and optional fields, UNSPECIFIED enums, empty maps, empty lists of
plain values.
"""

from collections.abc import Callable
from enum import Enum, auto
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from towline_gateway.codec import scalars, well_known
from towline_gateway.codec.decode import is_map
from towline_gateway.codec.json_text import quoted

Write = Callable[[Any], str]
Step = tuple[str, str, "_Print", Write]
"""The JSON name with its colon, the name, when it is printed, and how."""


def encode(message: Message) -> str:
    """Returns the JSON text of a message, in one line; raises `ValueError` on a number that JSON does not know."""
    return message_writer(message.DESCRIPTOR)(message)


@cache
def message_writer(descriptor: Descriptor) -> Write:
    """Returns what writes messages of this type."""
    well_known.check_known(descriptor.full_name)
    return well_known.WRITERS.get(descriptor.full_name) or _MessageWriter(descriptor).write


class _Print(Enum):
    """When a field is printed."""

    ALWAYS = auto()
    IF_NOT_EMPTY = auto()
    IF_SET = auto()


class _MessageWriter:
    """Writes messages of one type, its fields in the order of their declaration.

    Its steps are built on first use, so that types may refer to themselves.
    """

    __slots__ = ("_descriptor", "_steps")

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._steps: tuple[Step, ...] | None = None

    def write(self, message: Message) -> str:
        """Returns the JSON object of the message."""
        if self._steps is None:
            self._steps = tuple(
                (f"{quoted(field.json_name)}:", field.name, _when(field), _field_writer(field))
                for field in self._descriptor.fields
            )
        members: list[str] = []
        for prefix, name, when, write in self._steps:
            if when is _Print.IF_SET and not message.HasField(name):
                continue
            value = getattr(message, name)
            if value or when is not _Print.IF_NOT_EMPTY:
                members.append(prefix + write(value))
        return f"{{{','.join(members)}}}"


def _when(field: FieldDescriptor) -> _Print:
    if field.has_presence:
        return _Print.IF_SET
    if is_map(field) or (field.is_repeated and field.message_type is None):
        return _Print.IF_NOT_EMPTY
    if field.enum_type is None:
        return _Print.ALWAYS
    zero = field.enum_type.values_by_number[0].name
    return _Print.ALWAYS if zero in scalars.enum_names(field.enum_type) else _Print.IF_NOT_EMPTY


def _field_writer(field: FieldDescriptor) -> Write:
    if is_map(field):
        return _map_writer(field)
    write = message_writer(field.message_type) if field.message_type else scalars.writer(field)
    return _list_writer(write) if field.is_repeated else write


def _list_writer(write: Write) -> Write:
    def write_all(values: Any) -> str:
        return f"[{','.join([write(value) for value in values])}]"

    return write_all


def _map_writer(field: FieldDescriptor) -> Write:
    assert field.message_type is not None
    value_field = field.message_type.fields_by_name["value"]
    write = message_writer(value_field.message_type) if value_field.message_type else scalars.writer(value_field)

    def write_map(entries: Any) -> str:
        members = [f"{quoted(_key_text(key))}:{write(entries[key])}" for key in sorted(entries)]
        return f"{{{','.join(members)}}}"

    return write_map


def _key_text(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
