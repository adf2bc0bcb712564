"""The contract as the descriptors tell it: services, methods, who may call them, and the comments of the protos.

The one place that looks for what the API offers; everything public follows from the options of the methods.
"""

import importlib
import importlib.resources
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import towline.v1
from towline.v1 import access_pb2

# The stubs of the generated modules do not say what an extension holds.
_HTTP = cast("Any", annotations_pb2.http)
_ACCESS = cast("Any", access_pb2.access)


def services() -> list[ServiceDescriptor]:
    """Every service of the contract, in the order of their names."""
    found: dict[str, ServiceDescriptor] = {}
    for module in pkgutil.iter_modules(towline.v1.__path__, "towline.v1."):
        if module.name.endswith("_service_pb2"):
            file = importlib.import_module(module.name).DESCRIPTOR
            found.update(file.services_by_name)
    return [found[name] for name in sorted(found)]


def http_rules(method: MethodDescriptor) -> Iterator[http_pb2.HttpRule]:
    """The `google.api.http` rules of a method, additional bindings included; none when it has no REST route."""
    options = method.GetOptions()
    if options.HasExtension(_HTTP):
        rule: http_pb2.HttpRule = options.Extensions[_HTTP]
        yield rule
        yield from rule.additional_bindings


def access(method: MethodDescriptor) -> str:
    """Name of the `towline.v1.access` option of a method: PUBLIC, USER, ADMIN or AGENT."""
    value: access_pb2.Access = method.GetOptions().Extensions[_ACCESS]
    return access_pb2.Access.Name(value)


def message_class(descriptor: Descriptor) -> type[Message]:
    """The generated class of a message type."""
    return GetMessageClass(descriptor)


def grpc_path(method: MethodDescriptor) -> str:
    """The name by which gRPC calls a method: `/towline.v1.RunService/StartRun`."""
    return f"/{method.containing_service.full_name}/{method.name}"


@dataclass(frozen=True, slots=True)
class Comments:
    """The comments of the protos by the full name of what they stand above."""

    by_name: dict[str, str]

    def of(self, full_name: str) -> str:
        """The comment as one text, empty when there is none."""
        return self.by_name.get(full_name, "")


@cache
def comments() -> Comments:
    """Reads the comments from the descriptor set that ships with the contract."""
    octets = (importlib.resources.files("towline.v1") / "descriptors.binpb").read_bytes()
    found: dict[str, str] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(octets).file:
        for location in file.source_code_info.location:
            if location.leading_comments and len(location.path) % 2 == 0:
                found[_name_at(file, location.path)] = _one_text(location.leading_comments)
    return Comments(found)


def _one_text(comment: str) -> str:
    return "\n".join(line.strip() for line in comment.strip().splitlines())


def _name_at(file: descriptor_pb2.FileDescriptorProto, path: Sequence[int]) -> str:
    """Follows a source path (pairs of field number and index) to the full name of what is there."""
    names = [file.package]
    here: Message = file
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = here.DESCRIPTOR.fields_by_number[number]
        if not field.is_repeated:
            break  # an option: it has no name of its own
        here = getattr(here, field.name)[index]
        names.append(getattr(here, "name", ""))
    return ".".join(names)
