"""The OpenAPI document and its page: complete, sound, and as the gateway really behaves."""

import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, cast

import pytest
from gateway_fakes import gateway, in_loop
from gateway_kinds import printed, service_of
from google.api.http_pb2 import HttpRule
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from towline.v1.run_pb2 import Run, Step
from towline.v1.workflow_pb2 import Workflow
from towline_gateway import contract, openapi, routes
from towline_gateway.codec import decode
from towline_gateway.docs_page import DocsPage
from towline_gateway.markup import el, prose
from towline_gateway.samples import sample

TABLE = routes.derive(contract.services())
DOCUMENT: Any = openapi.document(TABLE)
OPERATIONS = [(verb, path, operation) for path, item in DOCUMENT["paths"].items() for verb, operation in item.items()]


def walk(value: Any) -> Iterator[Any]:
    """Yields every object within a document."""
    if isinstance(value, dict):
        yield value
    for each in _below(value):
        yield from walk(each)


def _below(value: Any) -> Any:
    match value:
        case dict():
            return cast("dict[str, Any]", value).values()
        case list():
            return cast("list[Any]", value)
        case _:
            return ()


def test_it_is_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_reference_resolves() -> None:
    references = {node["$ref"] for node in walk(DOCUMENT) if "$ref" in node}
    assert references
    for reference in references:
        target = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target


def test_every_component_is_referred_to() -> None:
    references = {node["$ref"] for node in walk(DOCUMENT) if "$ref" in node}
    for kind in ("schemas", "responses"):
        assert {f"#/components/{kind}/{name}" for name in DOCUMENT["components"][kind]} <= references


def test_every_route_is_there_with_a_unique_id() -> None:
    assert len(OPERATIONS) == len(TABLE.bindings)
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert {tag for _, _, operation in OPERATIONS for tag in operation["tags"]} == tags


def test_path_parameters_are_those_of_the_path() -> None:
    for _, path, operation in OPERATIONS:
        named = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
        assert sorted(named) == sorted(re.findall(r"\{([^}]+)\}", path))


def test_every_operation_is_described_and_has_its_errors() -> None:
    for _, path, operation in OPERATIONS:
        assert operation["summary"], path
        codes = set(operation["responses"])
        assert {"400", "500", "503", "504"} <= codes
        assert ("401" in codes) or operation["x-access"] == "PUBLIC"
        assert any(code in codes for code in ("200", "201"))


def test_errors_come_from_the_comments() -> None:
    start = DOCUMENT["paths"]["/api/workflows/{workflowId}/execute"]["post"]
    assert {"404", "409", "415", "413"} <= set(start["responses"])
    secrets = DOCUMENT["paths"]["/api/secrets"]["get"]
    assert "409" in secrets["responses"]  # of the whole service
    update = DOCUMENT["paths"]["/api/workflows/{workflowId}"]["put"]
    assert "412" in update["responses"]
    assert "409" not in update["responses"]
    login = DOCUMENT["paths"]["/api/auth/login"]["post"]
    assert "401" in login["responses"]
    assert login["security"] == []


def test_headers_streams_and_uploads_are_told() -> None:
    start = DOCUMENT["paths"]["/api/workflows/{workflowId}/execute"]["post"]
    assert "Idempotency-Key" in [each["name"] for each in start["parameters"]]
    watch = DOCUMENT["paths"]["/api/runs/{runId}/events"]["get"]
    assert "Last-Event-ID" in [each["name"] for each in watch["parameters"]]
    assert "text/event-stream" in watch["responses"]["200"]["content"]
    push = DOCUMENT["paths"]["/api/plugins"]["post"]
    assert push["requestBody"]["content"] == {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
    }
    assert not [each for each in push["parameters"] if each["name"] == "chunk"]


def test_comments_describe_messages_fields_and_enum_values() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Node"]["description"] == "One plugin call."
    assert schemas["Node"]["properties"]["displayName"]["description"] == "A name for people; unset means the id."
    assert "`PARKED`: A person must decide." in schemas["Step.State"]["description"]
    assert "STATE_UNSPECIFIED" not in schemas["Step.State"]["enum"]
    assert set(schemas["Edge"]["properties"]) == {"from", "to", "condition"}


def _validator(name: str) -> Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return Draft202012Validator(schema)


@pytest.mark.parametrize("message", [Workflow(), Run(state=Run.RUNNING, labels={"a": "b"}), Step(attempt=1)])
def test_what_the_gateway_prints_fits_its_schema(message: Any) -> None:
    validator: Any = _validator(message.DESCRIPTOR.name)
    assert [error.message for error in validator.iter_errors(printed(message))] == []


def test_samples_are_bodies_that_the_gateway_reads() -> None:
    for binding in TABLE.bindings:
        if binding.body != "*":
            continue
        path = re.sub(r"\{(\w+)\}", lambda found: "{" + _camel(found[1]) + "}", binding.template.text)
        body = DOCUMENT["paths"][path][binding.verb.lower()]["requestBody"]["content"]["application/json"]
        decode(
            contract.message_class(binding.method.input_type), sample(body["schema"], DOCUMENT["components"]["schemas"])
        )


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def test_ids_that_are_taken_get_a_number() -> None:
    rule = HttpRule(get="/x", additional_bindings=[HttpRule(get="/y/{inner.one_int64}")])
    document: Any = openapi.document(routes.derive([service_of({"Get": rule})]))
    assert document["paths"]["/x"]["get"]["operationId"] == "get"
    assert document["paths"]["/y/{inner.oneInt64}"]["get"]["operationId"] == "get2"
    own = document["components"]["schemas"]["Kinds"]["properties"]
    assert own["inner"] == {"$ref": "#/components/schemas/Kinds"}


class Elements(HTMLParser):
    """Checks that elements nest, and gathers ids, links and whatever would run or style in place."""

    VOID = ("meta", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.open += [tag] if tag not in self.VOID else []
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.inline += [tag] if tag == "style" or (tag == "script" and "src" not in given) else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@in_loop
async def test_the_page_shows_every_route_and_loads_nothing_from_elsewhere() -> None:
    async with gateway() as (_, client):
        page = await client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        elements = Elements()
        elements.feed(page.text)
        assert elements.open == []
        assert elements.inline == []
        assert len(set(elements.ids)) == len(elements.ids)
        for _, path, operation in OPERATIONS:
            assert operation["operationId"] in elements.ids
            assert html.escape(path) in page.text
        for link in elements.links:
            if link.startswith("#"):
                assert link[1:] in elements.ids
            else:
                assert (await client.get(link)).status_code == 200, link


@in_loop
async def test_the_document_is_served_and_home_leads_to_its_page() -> None:
    async with gateway() as (_, client):
        assert (await client.get("/openapi.json")).json() == DOCUMENT
        home = await client.get("/")
        assert (home.status_code, home.headers["location"]) == (307, "/docs")


def test_markup_escapes_what_it_is_given() -> None:
    assert el("p", "<b>", el("i", "&"), title='"') == '<p title="&quot;">&lt;b&gt;<i>&amp;</i></p>'
    assert prose("Uses `<a>`.\nErrors: NONE.") == "<p>Uses <code>&lt;a&gt;</code>.</p><p>Errors: NONE.</p>"


def test_the_page_of_any_document_escapes_its_texts() -> None:
    document: Any = {**DOCUMENT, "info": {"title": "<script>", "version": "1", "description": "<img>"}}
    page = DocsPage(document)
    assert b"<img>" not in page.html
    assert b"<script>" not in page.html
