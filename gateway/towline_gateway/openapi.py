"""The OpenAPI 3.1 document, derived from the route table and the comments of the protos.

Nothing in it is written by hand but the error body and what is true of every route.
"""

import importlib.metadata
from http import HTTPStatus
from typing import Final

from towline_gateway import bodies, contract
from towline_gateway.codec import Json
from towline_gateway.operations import REQUEST_ID, Operation, tag_of
from towline_gateway.routes import RouteTable
from towline_gateway.schemas import Schema, Schemas

_ABOUT: Final = (
    "Workflows that run on machines which pull their work. JSON is lowerCamelCase and every body is checked strictly: "
    "unknown fields are refused. Integers are JSON numbers; 64-bit ones may also be sent as decimal strings, and are "
    "answered so beyond ±(2^53−1). Times are RFC 3339, durations are seconds with the suffix `s`."
)
_PROBLEM: Final[Schema] = {
    "type": "object",
    "description": "The body of every error.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "description": "What went wrong.",
            "required": ["code", "status", "reason", "message", "details", "requestId"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "status": {"type": "string", "description": "The gRPC code."},
                "reason": {"type": "string", "description": "Stable; made for programs to decide on."},
                "message": {"type": "string", "description": "For people; may change."},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["field", "message"],
                        "properties": {
                            "field": {"type": "string", "description": "Path such as `dag.nodes[0].id`."},
                            "message": {"type": "string"},
                        },
                    },
                },
                "requestId": {"type": "string", "description": "Finds the request in the logs of the server."},
            },
        }
    },
}

_BEARER: Final = "An access token from a login, or an API key."
_HEADERS: Final[dict[str, Json]] = {
    name: {"description": about, "schema": {"type": kind}}
    for name, about, kind in (
        ("Retry-After", "Seconds after which a repetition may pass.", "integer"),
        ("WWW-Authenticate", "How to authenticate.", "string"),
        ("X-Request-Id", "The caller's own if it is well-formed, else a new one; finds the request in logs.", "string"),
    )
}
_HEADERS_OF: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


def document(table: RouteTable) -> Schema:
    """Returns the document of all routes."""
    schemas = Schemas(contract.comments())
    paths: dict[str, Json] = {}
    operation_ids: set[str] = set()
    codes: set[int] = set()
    for binding in sorted(table.bindings, key=lambda each: each.template.text):
        operation = Operation(binding, schemas)
        codes |= operation.error_codes
        item = paths.setdefault(operation.path, {})
        assert isinstance(item, dict)
        item[binding.verb.lower()] = operation.document(operation_ids)
    schemas.components["Problem"] = _PROBLEM
    return {
        "openapi": "3.1.0",
        "info": {"title": "Towline", "version": importlib.metadata.version("towline"), "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": _tags(table),
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "responses": {str(code): _problem_response(code) for code in sorted(codes)},
            "headers": _HEADERS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _BEARER}},
        },
    }


def _tags(table: RouteTable) -> list[Json]:
    services = {binding.method.containing_service.full_name for binding in table.bindings}
    return [{"name": tag_of(name), "description": contract.comments().of(name)} for name in sorted(services)]


def _problem_response(code: int) -> Schema:
    headers: Schema = {**REQUEST_ID}
    headers |= {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS_OF.get(code, ())}
    return {
        "description": HTTPStatus(code).phrase,
        "headers": headers,
        "content": {bodies.JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
