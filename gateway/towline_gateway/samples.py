"""A body to start from: every field of a schema once, with the value that says nothing."""

from typing import Any

from towline_gateway.codec import Json

_EMPTY: dict[str, Json] = {"boolean": False, "integer": 0, "number": 0, "string": ""}


def sample(schema: Any, schemas: dict[str, Any], seen: frozenset[str] = frozenset()) -> Json:
    """A value of the schema; a schema that contains itself is cut off with null."""
    reference = schema.get("$ref")
    if reference:
        name = reference.rpartition("/")[2]
        return None if name in seen else sample(schemas[name], schemas, seen | {name})
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [sample(schema["items"], schemas, seen)]
    if schema.get("type", "object") == "object":
        return {name: sample(each, schemas, seen) for name, each in schema.get("properties", {}).items()}
    if schema.get("format") == "date-time":
        return "1970-01-01T00:00:00Z"
    return "0s" if "pattern" in schema else _EMPTY[schema["type"]]
