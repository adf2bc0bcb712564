"""Whatever REST shows says what it is: in a comment of the protos, or by a name that means the same everywhere."""

from typing import Any

from towline_gateway import contract, openapi, routes

DOCUMENT: Any = openapi.document(routes.derive(contract.services()))
SCHEMAS: Any = DOCUMENT["components"]["schemas"]


def _is_described(schema: Any) -> bool:
    if schema.get("description"):
        return True
    below: Any = schema.get("items") or schema.get("additionalProperties") or {}
    reference: Any = schema.get("$ref") or (below is not True and below.get("$ref"))
    return bool(reference) and _is_described(SCHEMAS[reference.rpartition("/")[2]])


def test_every_message_and_field_says_what_it_is() -> None:
    fields = [
        f"{name}.{field}"
        for name, schema in SCHEMAS.items()
        for field, of_field in schema.get("properties", {}).items()
        if not _is_described(of_field)
    ]
    messages = [name for name, schema in SCHEMAS.items() if not _is_described(schema)]
    assert fields + messages == [], "needs a comment in protos/towline/v1"


def test_every_route_and_parameter_says_what_it_is() -> None:
    silent = [
        f"{verb.upper()} {path} {parameter['name']}"
        for path, item in DOCUMENT["paths"].items()
        for verb, operation in item.items()
        for parameter in operation["parameters"]
        if not parameter["description"] and not _is_described(parameter["schema"])
    ]
    assert silent == [], "needs a comment in protos/towline/v1"
    assert all(operation["summary"] for item in DOCUMENT["paths"].values() for operation in item.values())
