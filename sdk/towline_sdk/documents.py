"""JSON as people write and read it, to and from the messages of the contract; the only user of `json_format`.

Refuses, with the path of each wrong place, what the wire would change silently: numbers that a double cannot hold,
unknown fields, values of another type.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeAlias, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from towline.v1.workflow_pb2 import Concurrency, Dag, Edge, Node, Workflow
from towline_sdk.errors import InvalidDocumentError, Violation

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonInput: TypeAlias = "bool | int | float | str | Sequence[JsonInput] | Mapping[str, JsonInput] | None"
"""JSON that is only read: also takes a `dict[str, int]`, which is no `dict[str, Json]`."""
MessageT = TypeVar("MessageT", bound=Message)

LARGEST_INTEGER: Final = 2**53 - 1
WORKFLOW_FIELDS: Final = ("name", "description", "dag", "inputSchema", "output", "timeoutMs", "concurrency")
DAG_FIELDS: Final = ("nodes", "edges")
FREE_JSON: Final = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
WIDE_INTEGERS: Final = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})
# `json_format` says where it failed in words, one per level, and sometimes again as a path at the end.
PARSE_STEP: Final = re.compile(r"Failed to parse (\w+) field: ")
PARSE_PLACE: Final = re.compile(r"( at \w+\.([\w\[\].]*\w))?\.*$")
PLAIN_WORDS: Final = (
    (re.compile(r"^expected string or bytes-like object.*"), "must be a string"),
    (re.compile(r"^Struct must be in a dict.*"), "must be an object"),
    (re.compile(r"^(invalid literal for int|Couldn't parse integer|Bool value).*"), "must be an integer"),
    (re.compile(r"^Invalid enum value (\S+) for enum type \S+"), r"has no value \1"),
)


@dataclass(frozen=True, slots=True)
class Policies:
    """What a workflow says of its runs as a whole, as in `towline.v1.Workflow`; None says nothing."""

    input_schema: Struct | None = None
    output: Value | None = None
    timeout_ms: int | None = None
    concurrency: Concurrency | None = None

    def given(self) -> dict[str, Any]:
        """Returns what is said, as fields of a request."""
        values = {name: getattr(self, name) for name in ("input_schema", "output", "timeout_ms", "concurrency")}
        return {name: value for name, value in values.items() if value is not None}


NO_POLICIES: Final = Policies()


@dataclass(frozen=True, slots=True)
class WorkflowDocument:
    """What a workflow file says; a file that holds only a DAG has no name."""

    name: str
    description: str
    dag: Dag
    policies: Policies = NO_POLICIES


def parse_json(text: str, source: str) -> Json:
    """Returns the value of a JSON text; `source` names it in errors."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"{source} is not JSON: {error}") from None


def parse_workflow(document: Json) -> WorkflowDocument:
    """Reads `{name, description, dag, …}`, named as in `towline.v1.Workflow`, or a bare `{nodes, edges}`."""
    if not isinstance(document, dict):
        raise InvalidDocumentError("a workflow is a JSON object: {name, description, dag} or {nodes, edges}")
    if "dag" not in document:
        return WorkflowDocument("", "", parse_dag(document, ""))
    policies = Workflow()
    wrong = [*_unknown(document, WORKFLOW_FIELDS, ""), *_not_text(document, ("name", "description"))]
    wrong += _fill(policies, {key: document[key] for key in WORKFLOW_FIELDS[3:] if key in document}, "")
    if wrong:
        raise _invalid("the workflow", wrong)
    name, description = (cast("str", document.get(key, "")) for key in ("name", "description"))
    return WorkflowDocument(name, description, parse_dag(document["dag"], "dag"), _policies(policies))


def _policies(message: Workflow) -> Policies:
    return Policies(
        **{name: getattr(message, name) for name in Policies.__slots__ if message.HasField(cast("Any", name))}
    )


def parse_dag(document: Json, path: str) -> Dag:
    """Reads `{nodes, edges}`; errors carry paths below `path`."""
    if not isinstance(document, dict):
        raise _invalid("the DAG", [Violation(path or "dag", "must be an object with nodes and edges")])
    wrong = list(_unknown(document, DAG_FIELDS, path))
    nodes = _items(document.get("nodes", []), Node, _join(path, "nodes"), wrong)
    edges = _items(document.get("edges", []), Edge, _join(path, "edges"), wrong)
    if wrong:
        raise _invalid("the DAG", wrong)
    return Dag(nodes=nodes, edges=edges)


def parse_value(document: JsonInput, path: str) -> Value:
    """Returns free JSON as the wire carries it; every number arrives as written."""
    wrong = list(_lossy_numbers(cast("Json", document), path))
    if wrong:
        raise _invalid(f"the {path}", wrong)
    return json_format.Parse(json.dumps(document), Value())


def plain_value(value: Value) -> Json:
    """Returns free JSON of the wire as Python's own values."""
    return _whole(json_format.MessageToDict(value))


def to_json(message: Message) -> dict[str, Json]:
    """Returns the JSON of a message as REST prints it: every field but unset messages and UNSPECIFIED enums.

    Keys stand in the order of the contract, those of free JSON and maps in their own.
    """
    document = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return cast("dict[str, Json]", _plain(document, cast("Descriptor", message.DESCRIPTOR)))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _items(document: Json, kind: type[MessageT], path: str, wrong: list[Violation]) -> list[MessageT]:
    if not isinstance(document, list):
        wrong.append(Violation(path, "must be an array"))
        return []
    items = [kind() for _ in document]
    for index, (item, message) in enumerate(zip(document, items, strict=True)):
        wrong.extend(_fill(message, item, f"{path}[{index}]"))
    return items


def _fill(message: Message, document: Json, path: str) -> Iterator[Violation]:
    if not isinstance(document, dict):
        yield Violation(path, "must be an object")
        return
    wrong = [*_lossy_numbers(document, path), *_unknown_below(document, cast("Descriptor", message.DESCRIPTOR), path)]
    yield from wrong
    if wrong:
        return
    try:
        json_format.ParseDict(document, message)
    except json_format.ParseError as error:
        yield _violation(str(error), path)


def _violation(error: str, path: str) -> Violation:
    place = PARSE_PLACE.search(error)
    steps = [place[2]] if place and place[2] else PARSE_STEP.findall(error)
    message = PARSE_PLACE.sub("", PARSE_STEP.sub("", error))
    for pattern, plain in PLAIN_WORDS:
        message = pattern.sub(plain, message)
    return Violation(".".join(filter(None, [path, *steps])), message)


def _unknown_below(document: Json, descriptor: Descriptor, path: str) -> Iterator[Violation]:
    if not isinstance(document, dict):
        return
    fields = {field.json_name: field for field in descriptor.fields}
    yield from _unknown(document, tuple(fields), path)
    for key in document.keys() & fields.keys():
        below = fields[key].message_type
        if below is not None and below.full_name not in FREE_JSON and not below.GetOptions().map_entry:
            yield from _unknown_below(document[key], below, _join(path, key))


def _unknown(document: Mapping[str, Json], known: tuple[str, ...], path: str) -> Iterator[Violation]:
    for key in document.keys() - set(known):
        near = get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        yield Violation(_join(path, key), f"is not a field; {hint}")


def _not_text(document: Mapping[str, Json], keys: tuple[str, ...]) -> Iterator[Violation]:
    for key in keys:
        if not isinstance(document.get(key, ""), str):
            yield Violation(key, "must be a string")


def _lossy_numbers(document: Json, path: str) -> Iterator[Violation]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _lossy_numbers(value, _join(path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _lossy_numbers(value, f"{path}[{index}]")
    elif isinstance(document, int) and abs(document) > LARGEST_INTEGER:
        yield Violation(path, "is an integer beyond ±(2^53-1): write it as a string")
    elif isinstance(document, float) and document in (float("inf"), float("-inf")):
        yield Violation(path, "is a number too large for a double")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _invalid(what: str, wrong: list[Violation]) -> InvalidDocumentError:
    ordered = tuple(sorted(wrong, key=lambda violation: violation.field))
    return InvalidDocumentError(f"{what} is not valid", reason="INVALID_ARGUMENT", violations=ordered)


def _plain(document: Json, descriptor: Descriptor) -> Json:
    """Makes whole doubles and 64-bit integers plain numbers, which `json_format` prints as `3.0` and `"1000"`."""
    if descriptor.full_name in FREE_JSON:
        return _whole(document)
    if not isinstance(document, dict):
        return document
    return {
        field.json_name: _plain_field(document[field.json_name], field)
        for field in descriptor.fields
        if field.json_name in document and not _is_unsaid(document[field.json_name], field)
    }


def _is_unsaid(value: Json, field: FieldDescriptor) -> bool:
    if field.is_repeated and (field.message_type is None or field.message_type.GetOptions().map_entry):
        return not value
    return field.enum_type is not None and value == field.enum_type.values_by_number[0].name


def _plain_field(value: Json, field: FieldDescriptor) -> Json:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _whole(value)
    if isinstance(value, list) and (field.message_type is None or field.message_type.full_name not in FREE_JSON):
        return [_plain_field(item, field) for item in value]
    if field.message_type is not None:
        return _plain(value, field.message_type)
    if isinstance(value, str) and field.cpp_type in WIDE_INTEGERS:
        return int(value) if abs(int(value)) <= LARGEST_INTEGER else value
    return _whole(value)


def _whole(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_INTEGER:
        return int(value)
    return value
