"""Protobuf to JSON, guided by the descriptors.

Prints every field that has a value by nature (empty strings, 0, false, [] and {} included), so that clients never
miss a field; leaves out unset messages, unset optional fields and enums that are UNSPECIFIED.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from towline_gateway.codec import scalars, well_known
from towline_gateway.codec.decode import is_map
from towline_gateway.codec.json_text import Json

Write = Callable[[Any], Json]
Step = tuple[str, str, Write]


def encode(message: Message) -> Json:
    """Returns the JSON value of a message."""
    return message_writer(message.DESCRIPTOR)(message)


@cache
def message_writer(descriptor: Descriptor) -> Write:
    """Returns what writes messages of this type."""
    well_known.check_known(descriptor.full_name)
    return well_known.WRITERS.get(descriptor.full_name) or _MessageWriter(descriptor).write


class _MessageWriter:
    """Writes messages of one type; its steps are built on first use, so that types may refer to themselves."""

    __slots__ = ("_always", "_compiled", "_descriptor", "_if_set", "_if_specified")

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._compiled = False
        self._always: list[Step] = []
        self._if_specified: list[Step] = []
        self._if_set: list[Step] = []

    def write(self, message: Message) -> Json:
        """Returns the JSON object of the message."""
        if not self._compiled:
            self._compile()
        members: dict[str, Json] = {}
        for json_name, name, write in self._always:
            members[json_name] = write(getattr(message, name))
        for json_name, name, write in self._if_specified:
            if number := getattr(message, name):
                members[json_name] = write(number)
        for json_name, name, write in self._if_set:
            if message.HasField(name):
                members[json_name] = write(getattr(message, name))
        return members

    def _compile(self) -> None:
        for field in self._descriptor.fields:
            self._steps_of(field).append((field.json_name, field.name, _field_writer(field)))
        self._compiled = True

    def _steps_of(self, field: FieldDescriptor) -> list[Step]:
        if field.has_presence:
            return self._if_set
        if is_map(field):
            return self._if_specified
        zero_is_a_name = field.enum_type and field.enum_type.values_by_number[0].name in scalars.enum_names(
            field.enum_type
        )
        return self._if_specified if field.enum_type and not field.is_repeated and not zero_is_a_name else self._always


def _field_writer(field: FieldDescriptor) -> Write:
    if is_map(field):
        return _map_writer(field)
    write = message_writer(field.message_type) if field.message_type else scalars.writer(field)
    return _list_writer(write) if field.is_repeated else write


def _list_writer(write: Write) -> Write:
    def write_all(values: Any) -> Json:
        return [write(value) for value in values]

    return write_all


def _map_writer(field: FieldDescriptor) -> Write:
    assert field.message_type is not None
    value_field = field.message_type.fields_by_name["value"]
    write = message_writer(value_field.message_type) if value_field.message_type else scalars.writer(value_field)

    def write_map(entries: Any) -> Json:
        return {_key_text(key): write(entries[key]) for key in sorted(entries)}

    return write_map


def _key_text(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
