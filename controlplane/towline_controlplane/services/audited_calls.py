"""What the audit log is told of a call: ids and choices out of its request and answer, never their content."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from towline_controlplane.services.access import method_path

MAX_VALUE_LENGTH: Final = 200
_HTTP: Final[Any] = annotations_pb2.http
_VARIABLE: Final = re.compile(r"{(\w+)")
_PATTERNS: Final = ("post", "put", "patch", "delete")
_CHOICES: Final = (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM)


class AuditedCalls:
    """Knows of each method which fields of its messages say what a call is about."""

    def __init__(self, services: Sequence[ServiceDescriptor], audited: frozenset[str]) -> None:
        methods = [method for service in services for method in service.methods]
        self._named = {
            path: tuple(_named_fields(method)) for method in methods if (path := method_path(method)) in audited
        }

    def target(self, path: str, request: Message | None, answer: Message | None) -> Mapping[str, str]:
        """Returns what a call was about, by the names of fields as in JSON."""
        said = dict(_said(request, self._named[path])) if request is not None else {}
        return {name: value[:MAX_VALUE_LENGTH] for name, value in {**_made(answer), **said}.items() if value}


def _named_fields(method: MethodDescriptor) -> Iterator[FieldDescriptor]:
    """Yields the fields that stand in the path of the route, and those that are a choice."""
    rule = method.GetOptions().Extensions[_HTTP]
    variables = {name for pattern in _PATTERNS for name in _VARIABLE.findall(getattr(rule, pattern))}
    for field in method.input_type.fields:
        if not field.is_repeated and (field.name in variables or field.type in _CHOICES):
            yield field


def _said(request: Message, fields: tuple[FieldDescriptor, ...]) -> Iterator[tuple[str, str]]:
    for field in fields:
        value = getattr(request, field.name)
        if field.type == FieldDescriptor.TYPE_ENUM and field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)
            yield field.json_name, known.name if known and value else ""
        elif field.type == FieldDescriptor.TYPE_BOOL:
            yield field.json_name, "true" if value else ""
        else:
            yield field.json_name, str(value)


def _made(answer: Message | None) -> dict[str, str]:
    """Returns the ids in an answer: its own, and those of what it holds."""
    if answer is None:
        return {}
    made: dict[str, str] = {}
    for field, value in answer.ListFields():
        if field.is_repeated:
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            own = value.DESCRIPTOR.fields_by_name.get("id")
            if own is not None and own.type == FieldDescriptor.TYPE_STRING:
                made[f"{field.json_name}Id"] = value.id
        elif field.type == FieldDescriptor.TYPE_STRING and (field.name == "id" or field.name.endswith("_id")):
            made[field.json_name] = value
    return made
