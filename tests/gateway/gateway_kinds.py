"""A contract of its own for the tests: every kind of field and every form of route that the real one lacks today."""

import itertools
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
)
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from towline_gateway.codec import encode, parse

_F = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "gateway.test"
_HTTP: Any = annotations_pb2.http

_SCALARS = tuple(
    name.removeprefix("TYPE_") for name, _ in _F.Type.items() if name not in {"TYPE_ENUM", "TYPE_GROUP", "TYPE_MESSAGE"}
)
_MAP_KEYS = tuple(name for name in _SCALARS if name not in {"BYTES", "DOUBLE", "FLOAT"})
_numbers = itertools.count(1)


def printed(message: Message) -> Any:
    """What a client reads of a message."""
    return parse(encode(message).encode())


def _field(message: Any, name: str, kind: str, repeated: bool = False, type_name: str = "") -> Any:
    field = message.field.add(name=name, number=len(message.field) + 1, type=_F.Type.Value(f"TYPE_{kind}"))
    field.label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
    if type_name:
        field.type_name = f".{type_name}"
    return field


def _map(message: Any, name: str, key: str, value: str, type_name: str = "") -> None:
    entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    _field(entry, "key", key)
    _field(entry, "value", value, type_name=type_name)
    _field(message, name, "MESSAGE", repeated=True, type_name=f"{_PACKAGE}.{message.name}.{entry.name}")


def _kinds(file: Any) -> None:
    colour = file.enum_type.add(name="Colour")
    for number, name in enumerate(("RED", "GREEN", "BLUE")):
        colour.value.add(name=name, number=number)
    kinds = file.message_type.add(name="Kinds")
    for scalar in _SCALARS:
        _field(kinds, f"one_{scalar.lower()}", scalar)
        _field(kinds, f"many_{scalar.lower()}", scalar, repeated=True)
    for key in _MAP_KEYS:
        _map(kinds, f"by_{key.lower()}", key, "STRING")
    own, enum = f"{_PACKAGE}.Kinds", f"{_PACKAGE}.Colour"
    _field(kinds, "colour", "ENUM", type_name=enum)
    _field(kinds, "colours", "ENUM", repeated=True, type_name=enum)
    _map(kinds, "colour_of", "STRING", "ENUM", enum)
    _map(kinds, "kinds_of", "STRING", "MESSAGE", own)
    _map(kinds, "values_of", "STRING", "MESSAGE", "google.protobuf.Value")
    _field(kinds, "inner", "MESSAGE", type_name=own)
    _field(kinds, "list_value", "MESSAGE", type_name="google.protobuf.ListValue")
    _field(kinds, "values", "MESSAGE", repeated=True, type_name="google.protobuf.Value")
    _field(kinds, "time", "MESSAGE", type_name="google.protobuf.Timestamp")
    _field(kinds, "duration", "MESSAGE", type_name="google.protobuf.Duration")
    kinds.oneof_decl.add(name="choice")
    _field(kinds, "left", "STRING").oneof_index = 0
    _field(kinds, "right", "MESSAGE", type_name=own).oneof_index = 0


def _pool() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="gateway/test/kinds.proto", package=_PACKAGE, syntax="proto3")
    file.dependency.extend(module.DESCRIPTOR.name for module in (struct_pb2, timestamp_pb2, duration_pb2))
    _kinds(file)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


_pool()
KINDS = descriptor_pool.Default().FindMessageTypeByName(f"{_PACKAGE}.Kinds")
Kinds: Any = message_factory.GetMessageClass(KINDS)


def service_of(rules: dict[str, http_pb2.HttpRule], uploads: bool = False, streams: bool = False) -> ServiceDescriptor:
    """A service whose methods, by name, take and answer `Kinds` under the given rules."""
    number = next(_numbers)
    name, package = f"gateway/test/service{number}.proto", f"{_PACKAGE}.s{number}"
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    file.dependency.extend(["gateway/test/kinds.proto", "google/api/annotations.proto"])
    service = file.service.add(name="KindsService")
    for method_name, rule in rules.items():
        method = service.method.add(name=method_name, client_streaming=uploads, server_streaming=streams)
        method.input_type = method.output_type = f".{_PACKAGE}.Kinds"
        method.options.Extensions[_HTTP].CopyFrom(rule)
    found = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return found.services_by_name["KindsService"]
