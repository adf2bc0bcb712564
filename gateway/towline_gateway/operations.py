"""One route as an OpenAPI operation: its parameters, bodies, answers and every error that it can end with.

All of it follows from the descriptors, the options and the comments of the protos, and from what the gateway itself
refuses.
"""

import re
from http import HTTPStatus
from typing import Final

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from towline_gateway import bodies, contract, etags
from towline_gateway.codec import Json
from towline_gateway.problems import CODES_OF_REASONS, HTTP_CODES
from towline_gateway.routes import Binding, Kind, field_at, json_path
from towline_gateway.schemas import Schema, Schemas
from towline_gateway.streams import payload_field
from towline_gateway.transcode import is_parameter

REQUEST_ID: Final[Schema] = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_ETAG: Final[Schema] = {"description": "Names this state of the resource.", "schema": {"type": "string"}}
_BINARY: Final[Schema] = {"type": "string", "format": "binary"}
_EVENT: Final[Schema] = {
    "id": {"type": "string"},
    "event": {"type": "string"},
    "data": {"type": "string", "contentMediaType": bodies.JSON},
}
_FILE: Final[Json] = {"*/*": {"schema": _BINARY}}


def _header(name: str, about: str) -> Json:
    return {"name": name, "in": "header", "required": False, "description": about, "schema": {"type": "string"}}


_FILE_HEADERS: Final[list[Json]] = [
    _header(name, about)
    for name, about in (
        ("Range", "One range of bytes, such as `bytes=1000-` or `bytes=-500`; of several the whole file is sent."),
        ("If-Range", "An `ETag`: the range counts only if the file is still that one."),
        ("If-None-Match", "`ETag`s of what the client has: if the file is one of them, the answer is 304."),
    )
]
# 429 is for who asks too often, 501 comes from a control plane that is older than the gateway.
_ALWAYS: Final = (400, 429, 431, 500, 501, 503, 504)
_RESOURCE_EXHAUSTED: Final = (413, 429)
_LISTED: Final = re.compile(r"(?P<name>[A-Z_]+)(?:\s+\((?:[^()]*\breason\s+(?P<reason>[A-Z_]+))?[^()]*\))?")


def tag_of(service: str) -> str:
    """The tag of a service, by its full name: `Run` of `towline.v1.RunService`."""
    return service.rpartition(".")[2].removesuffix("Service")


class Operation:
    """One route as an OpenAPI operation."""

    def __init__(self, binding: Binding, schemas: Schemas) -> None:
        self._binding = binding
        self._method = binding.method
        self._schemas = schemas
        self._comment = contract.comments().of(binding.method.full_name)
        self._access = contract.access(binding.method)
        self._names = [".".join(json_path(self._method.input_type, each)) for each in binding.template.variables]
        self.path = binding.template.text
        for variable, name in zip(binding.template.variables, self._names, strict=True):
            self.path = self.path.replace(f"{{{variable}}}", f"{{{name}}}")
        self._is_tagged = etags.has_etag(self._resource())
        self.error_codes = self._error_codes()

    def document(self, taken_ids: set[str]) -> Schema:
        """The operation; its id is one that is not taken yet, and is taken then."""
        success = str(self._binding.success)
        operation: Schema = {
            "operationId": _free_id(self._method.name, taken_ids),
            "tags": [tag_of(self._method.containing_service.full_name)],
            "summary": re.split(r"\.(?:\s|$)", self._comment, maxsplit=1)[0].replace("\n", " "),
            "description": self._comment,
            "parameters": [*self._path_parameters(), *self._query_parameters(), *self._header_parameters()],
            "responses": {
                success: self._success(),
                **self._conditional(),
                **{str(code): {"$ref": f"#/components/responses/{code}"} for code in sorted(self.error_codes)},
            },
            "security": [] if self._access == "PUBLIC" else [{"bearer": []}],
            "x-access": self._access,
            "x-grpc-method": contract.grpc_path(self._method),
        }
        if self._binding.body:
            operation["requestBody"] = self._request_body()
        return operation

    def _error_codes(self) -> set[int]:
        of_all = contract.comments().of(self._method.containing_service.full_name)
        codes = {*_ALWAYS, *_promised(of_all), *_promised(self._comment)}
        if self._access != "PUBLIC":
            codes |= {401, 403}
        if self._binding.template.variables:
            codes.add(404)
        if self._binding.body:
            codes |= {408, 413, 415}
        if self._binding.kind is Kind.DOWNLOAD:
            codes.add(416)
        return codes

    def _path_parameters(self) -> list[Json]:
        fields = [field_at(self._method.input_type, each) for each in self._binding.template.variables]
        return [self._parameter("path", name, field) for name, field in zip(self._names, fields, strict=True)]

    def _query_parameters(self) -> list[Json]:
        if self._binding.body == "*" or self._binding.kind is Kind.UPLOAD:
            return []
        given = {*self._binding.template.variables, self._binding.body, *self._binding.taken_from_headers}
        return [
            self._parameter("query", field.json_name, field)
            for field in self._method.input_type.fields
            if field.name not in given and is_parameter(field)
        ]

    def _header_parameters(self) -> list[Json]:
        fields = self._method.input_type.fields_by_name
        found: list[Json] = []
        if "request_id" in fields:
            found.append(self._parameter("header", "Idempotency-Key", fields["request_id"]))
        if self._binding.kind is Kind.STREAM and "cursor" in fields:
            found.append(self._parameter("header", "Last-Event-ID", fields["cursor"]))
        if etags.has_etag(self._method.input_type):
            found.append(_header("If-Match", "The `ETag` of what the request changes: if it has changed since, 412."))
        if self._is_tagged and self._binding.verb == "GET":
            found.append(_header("If-None-Match", "`ETag`s of what the client has: if it is still that, 304."))
        return found + (_FILE_HEADERS if self._binding.kind is Kind.DOWNLOAD else [])

    def _parameter(self, place: str, name: str, field: FieldDescriptor) -> Schema:
        schema = self._schemas.of_field(field)
        description = schema.pop("description", "")
        if place == "path" and schema.get("type") == "string":
            schema["minLength"] = 1
        return {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}

    def _request_body(self) -> Schema:
        binding, request = self._binding, self._method.input_type
        if binding.kind is Kind.UPLOAD:
            return {"required": True, "content": {bodies.OCTETS: {"schema": _BINARY}}}
        whole = binding.body == "*"
        schema = (
            self._schemas.inline(request, binding.template.variables)
            if whole
            else self._schemas.of_field(field_at(request, binding.body))
        )
        return {"required": not whole, "content": {bodies.JSON: {"schema": schema}}}

    def _success(self) -> Schema:
        answer, name = self._method.output_type, self._binding.response_body
        phrase = HTTPStatus(self._binding.success).phrase
        if self._binding.kind is Kind.STREAM:
            events: Json = {"text/event-stream": self._events()}
            return {"description": "Server-sent events.", "headers": REQUEST_ID, "content": events}
        if self._binding.kind is Kind.DOWNLOAD:
            return {"description": "The file.", "headers": {**REQUEST_ID, "ETag": _ETAG}, "content": _FILE}
        schema = self._schemas.of_field(field_at(answer, name)) if name else self._schemas.of_message(answer)
        headers: Schema = {**REQUEST_ID, "ETag": _ETAG} if self._is_tagged else REQUEST_ID
        return {"description": phrase, "headers": headers, "content": {bodies.JSON: {"schema": schema}}}

    def _resource(self) -> Descriptor | None:
        answer, name = self._method.output_type, self._binding.response_body
        return field_at(answer, name).message_type if name else answer

    def _conditional(self) -> dict[str, Json]:
        unchanged: dict[str, Json] = {"304": {"description": "What the client has is still what there is."}}
        if self._binding.kind is not Kind.DOWNLOAD:
            return unchanged if self._is_tagged and self._binding.verb == "GET" else {}
        part: Schema = {
            "description": "A part of the file.",
            "headers": {**REQUEST_ID, "ETag": _ETAG},
            "content": _FILE,
        }
        return {"206": part, **unchanged}

    def _events(self) -> Schema:
        payload = payload_field(self._method)
        about = (
            f"Each event is named `{payload.name}`; its `id` is the cursor to go on from, its `data` the JSON of "
            "`x-event-data`. `end` closes a stream that is complete, `error` one that failed (its data is a Problem). "
            "Lines that begin with a colon keep the connection alive. The schema is that of one event."
        )
        data: dict[str, Json] = {payload.name: self._schemas.of_field(payload)}
        end = self._method.output_type.fields_by_name.get("end")
        if end is not None:
            data[end.name] = self._schemas.of_field(end)
        return {"schema": {"type": "object", "description": about, "properties": _EVENT}, "x-event-data": data}


def _promised(comment: str) -> set[int]:
    """The HTTP codes of the gRPC codes that a comment lists after `Errors:`; in parentheses it may say why."""
    codes = {
        CODES_OF_REASONS.get(found["reason"], HTTP_CODES[grpc.StatusCode[found["name"]]])
        for found in _LISTED.finditer(comment.partition("Errors:")[2])
        if found["name"] in grpc.StatusCode.__members__
    }
    return codes | set(_RESOURCE_EXHAUSTED) if 429 in codes else codes


def _free_id(name: str, taken: set[str]) -> str:
    base = name[0].lower() + name[1:]
    number, free = 1, base
    while free in taken:
        number += 1
        free = f"{base}{number}"
    taken.add(free)
    return free
