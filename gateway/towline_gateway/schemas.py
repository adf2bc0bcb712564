"""JSON Schemas of messages and enums, as the codec reads and writes them, with the comments of the protos."""

from collections.abc import Collection
from typing import Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from towline_gateway.codec import Json
from towline_gateway.codec.decode import is_map
from towline_gateway.codec.scalars import enum_names
from towline_gateway.codec.well_known import DURATION_PATTERN
from towline_gateway.contract import Comments

Schema = dict[str, Json]

_F = FieldDescriptor
_INT32: Final[Schema] = {"type": "integer", "format": "int32"}
_INT64: Final[Schema] = {"type": "integer", "format": "int64"}
_UINT32: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_UINT64: Final[Schema] = {"type": "integer", "minimum": 0}

_SCALARS: Final[dict[int, Schema]] = {
    _F.TYPE_BOOL: {"type": "boolean"},
    _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    _F.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _F.TYPE_FIXED32: _UINT32,
    _F.TYPE_FIXED64: _UINT64,
    _F.TYPE_FLOAT: {"type": "number", "format": "float"},
    _F.TYPE_INT32: _INT32,
    _F.TYPE_INT64: _INT64,
    _F.TYPE_SFIXED32: _INT32,
    _F.TYPE_SFIXED64: _INT64,
    _F.TYPE_SINT32: _INT32,
    _F.TYPE_SINT64: _INT64,
    _F.TYPE_STRING: {"type": "string"},
    _F.TYPE_UINT32: _UINT32,
    _F.TYPE_UINT64: _UINT64,
}
_WELL_KNOWN: Final[dict[str, Schema]] = {
    "google.protobuf.Duration": {"type": "string", "pattern": DURATION_PATTERN},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Value": {},
}
# Fields that mean the same wherever they stand need no comment of their own.
_STANDARD: Final[dict[str, str]] = {
    "agent_id": "Id of the agent.",
    "api_key_id": "Id of the API key.",
    "attempt": "Number of the attempt, from 1.",
    "create_time": "When it was made.",
    "end_time": "When it ended; unset while it has not.",
    "expire_time": "When it ends to be valid.",
    "id": "Names it for good.",
    "name": "Its name.",
    "next_page_token": "`pageToken` of the next page; empty on the last one.",
    "node_id": "Id of the node in the DAG.",
    "owner_id": "Id of the user whose it is.",
    "page_token": "`nextPageToken` of the page before; empty for the first.",
    "run_id": "Id of the run.",
    "schedule_id": "Id of the schedule.",
    "size_bytes": "Its size in bytes.",
    "start_time": "When it began; unset while it has not.",
    "token_id": "Id of the enrollment token.",
    "update_time": "When it was last changed.",
    "user_id": "Id of the user.",
    "version_id": "Id of the version.",
    "workflow_id": "Id of the workflow.",
}
_ANSWER: Final = "Response"


class Schemas:
    """Makes schemas, and gathers in `components` every message and enum that one of them refers to."""

    def __init__(self, comments: Comments) -> None:
        self.components: dict[str, Json] = {}
        self._comments = comments

    def of_message(self, message: Descriptor) -> Schema:
        """A reference to the component of the message."""
        if message.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[message.full_name])
        name = _component_name(message)
        if name not in self.components:
            self.components[name] = {}  # a placeholder, so that a type may refer to itself
            self.components[name] = self.inline(message)
        return _reference(name)

    def inline(self, message: Descriptor, omit: Collection[str] = ()) -> Schema:
        """The schema of the message itself, without the fields that are given elsewhere."""
        properties: dict[str, Json] = {
            field.json_name: self.of_field(field) for field in message.fields if field.name not in omit
        }
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if message.name.endswith(_ANSWER):
            schema["description"] = f"What `{message.name.removesuffix(_ANSWER)}` answers."
        return self._described(schema, message.full_name)

    def of_field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field, with its comment or what fields of its name always mean."""
        described = self._described(self._shape(field), field.full_name)
        standard = _STANDARD.get(field.name)
        return described if "description" in described or standard is None else {**described, "description": standard}

    def _shape(self, field: FieldDescriptor) -> Schema:
        if is_map(field) and field.message_type:
            return {"type": "object", "additionalProperties": self._single(field.message_type.fields_by_name["value"])}
        single = self._single(field)
        return {"type": "array", "items": single} if field.is_repeated else single

    def _single(self, field: FieldDescriptor) -> Schema:
        if field.message_type:
            return self.of_message(field.message_type)
        return self._of_enum(field.enum_type) if field.enum_type else dict(_SCALARS[field.type])

    def _of_enum(self, enum: EnumDescriptor) -> Schema:
        name = _component_name(enum)
        if name not in self.components:
            schema = self._described({"type": "string", "enum": list(enum_names(enum))}, enum.full_name)
            # Protobuf puts the values of an enum beside it, but comments are found below it.
            notes = [
                f"`{value}`: {comment}"
                for value in enum_names(enum)
                if (comment := self._comments.of(f"{enum.full_name}.{value}"))
            ]
            schema["description"] = "\n".join([str(schema.get("description", "")), *notes]).strip()
            self.components[name] = schema
        return _reference(name)

    def _described(self, schema: Schema, full_name: str) -> Schema:
        comment = self._comments.of(full_name)
        return {**schema, "description": comment} if comment else schema


def _component_name(message: Descriptor | EnumDescriptor) -> str:
    """The name within its package: `Run.State`."""
    file = message.file
    return message.full_name.removeprefix(f"{file.package}.")


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
