"""`/docs`: the OpenAPI document as a page for people, with a form to try each route.

Made on the server from the same document; its style and script are files of this package. Nothing is loaded from
elsewhere, and the content security policy allows nothing else.
"""

import importlib.resources
import json
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from towline_gateway.markup import Html, el, inline, prose
from towline_gateway.samples import sample
from towline_gateway.schemas import Schema

_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STATIC: Final = {"docs.css": "text/css", "docs.js": "text/javascript"}


class DocsPage:
    """The page of one OpenAPI document and its two static files."""

    def __init__(self, document: Schema) -> None:
        self.html = _Page(document).html().encode()

    def routes(self) -> list[Route]:
        """The routes of the page."""
        return [Route("/docs", self._show), *(_static(name, kind) for name, kind in _STATIC.items())]

    async def _show(self, request: Request) -> Response:
        return Response(self.html, headers={"Content-Security-Policy": _POLICY}, media_type="text/html")


def _static(name: str, media_type: str) -> Route:
    octets = (importlib.resources.files("towline_gateway") / "static" / name).read_bytes()

    async def show(request: Request) -> Response:
        return Response(octets, headers={"Cache-Control": "no-cache"}, media_type=media_type)

    return Route(f"/docs/{name}", show)


class _Page:
    """Turns the document into HTML; a section per service, an article per route, an article per schema."""

    def __init__(self, document: Any) -> None:
        self._info = document["info"]
        self._tags = document["tags"]
        self._schemas: dict[str, Any] = document["components"]["schemas"]
        self._operations: list[tuple[str, str, Any]] = [
            (verb.upper(), path, operation)
            for path, item in document["paths"].items()
            for verb, operation in item.items()
        ]

    def html(self) -> str:
        """The whole page."""
        head = el(
            "head",
            el("meta", charset="utf-8"),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("title", f"{self._info['title']} API"),
            el("link", rel="stylesheet", href="/docs/docs.css"),
            el("script", src="/docs/docs.js", defer=""),
        )
        main = el("main", self._intro(), *(self._service(tag) for tag in self._tags), self._all_schemas())
        return "<!doctype html>\n" + el("html", head, el("body", self._navigation(), main), lang="en")

    def _of(self, tag: Any) -> list[tuple[str, str, Any]]:
        return [each for each in self._operations if tag["name"] in each[2]["tags"]]

    def _navigation(self) -> Html:
        groups = [
            el(
                "li",
                el("a", tag["name"], href=f"#{tag['name']}"),
                el("ul", *(self._navigation_item(verb, path, each) for verb, path, each in self._of(tag))),
            )
            for tag in self._tags
        ]
        schemas = el("li", el("a", "Schemas", href="#schemas"))
        return el("nav", el("a", self._info["title"], href="/docs", class_="brand"), el("ul", *groups, schemas))

    @staticmethod
    def _navigation_item(verb: str, path: str, operation: Any) -> Html:
        link = el("a", _badge(verb), el("span", operation["operationId"]), href=f"#{operation['operationId']}")
        return el("li", link, title=f"{verb} {path}")

    def _intro(self) -> Html:
        title = el("h1", f"{self._info['title']} API ", el("small", self._info["version"]))
        link = el("p", "The same as a machine reads it: ", el("a", "openapi.json", href="/openapi.json"), ".")
        token = el("input", id="token", type="password", autocomplete="off", spellcheck="false", placeholder="eyJ…")
        note = "Kept in this page only. A successful login below fills it in."
        field = el("label", el("span", "Access token"), token, el("small", note), class_="token")
        return el("header", title, prose(self._info["description"]), link, field)

    def _service(self, tag: Any) -> Html:
        articles = [self._operation(verb, path, each) for verb, path, each in self._of(tag)]
        return el("section", el("h2", tag["name"]), prose(tag["description"]), *articles, id=tag["name"])

    def _operation(self, verb: str, path: str, operation: Any) -> Html:
        access = operation["x-access"]
        tags = el("span", access.lower(), class_="access") if access != "USER" else Html("")
        summary = el(
            "summary", _badge(verb), el("code", path, class_="path"), tags, el("span", inline(operation["summary"]))
        )
        about = prose(operation["description"])
        content = [about, self._parameters(operation), self._body(operation), self._responses(operation)]
        details = el("details", summary, *content, _try_form(verb, path, operation, self._schemas))
        return el("article", details, id=operation["operationId"])

    def _parameters(self, operation: Any) -> Html:
        rows = [
            el(
                "tr",
                el("th", el("code", each["name"])),
                el("td", each["in"]),
                el("td", self._type(each["schema"])),
                el("td", prose(each["description"])),
            )
            for each in operation["parameters"]
        ]
        return el("h3", "Parameters") + el("table", el("tbody", *rows)) if rows else Html("")

    def _body(self, operation: Any) -> Html:
        content = operation.get("requestBody", {}).get("content", {})
        parts = [el("h3", "Body ", el("small", media_type)) for media_type in content]
        parts += [self._properties(each["schema"]) for each in content.values()]
        return Html("".join(parts))

    def _properties(self, schema: Any) -> Html:
        rows = [
            el(
                "tr",
                el("th", el("code", name)),
                el("td", self._type(each)),
                el("td", prose(each.get("description", ""))),
            )
            for name, each in schema.get("properties", {}).items()
        ]
        return el("table", el("tbody", *rows)) if rows else el("p", self._type(schema))

    def _responses(self, operation: Any) -> Html:
        codes = operation["responses"]
        success = next(iter(codes))
        content = codes[success].get("content", {})
        shown = [
            el("p", el("strong", success), " ", self._type(each["schema"]), " ", el("small", media_type))
            + Html("".join(el("p", el("code", name), " ", self._type(data)) for name, data in _event_data(each)))
            for media_type, each in content.items()
        ]
        errors = " ".join(code for code in codes if code != success)
        problem = el(
            "p", "Errors: ", errors, ", each with a ", self._type({"$ref": "#/components/schemas/Problem"}), "."
        )
        return el("h3", "Answer") + Html("".join(shown)) + problem

    def _all_schemas(self) -> Html:
        articles = [
            el(
                "article",
                el("h3", name),
                prose(schema.get("description", "")),
                _values(schema) if "enum" in schema else self._properties(schema),
                id=f"schema-{name}",
            )
            for name, schema in self._schemas.items()
        ]
        return el("section", el("h2", "Schemas"), *articles, id="schemas")

    def _type(self, schema: Any) -> Html:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return el("a", name, href=f"#schema-{name}")
        if schema.get("type") == "array":
            return el("span", "list of ", self._type(schema["items"]))
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            return el("span", "map to ", self._type(values))
        return el("span", schema.get("format") or schema.get("type") or "any JSON")


def _event_data(content: Any) -> list[tuple[str, Any]]:
    return list(content.get("x-event-data", {}).items())


def _values(schema: Any) -> Html:
    return el("p", *(el("code", value) + Html(" ") for value in schema["enum"]))


def _badge(verb: str) -> Html:
    return el("b", verb, class_=f"verb {verb.lower()}")


def _try_form(verb: str, path: str, operation: Any, schemas: dict[str, Any]) -> Html:
    fields = [
        el("label", el("span", each["name"]), el("input", name=each["name"], data_in=each["in"], autocomplete="off"))
        for each in operation["parameters"]
    ]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        binary = media_type != "application/json"
        text = "" if binary else json.dumps(sample(content["schema"], schemas), indent=2)
        control = (
            el("input", type="file", name="body") if binary else el("textarea", text, name="body", spellcheck="false")
        )
        fields.append(el("label", el("span", "Body"), control, data_type=media_type))
    send = el("button", "Send", type="submit")
    stop = el("button", "Stop", type="button", class_="stop", hidden="")
    result = el("div", el("p", class_="status"), el("pre"), class_="result", role="status", hidden="")
    return el(
        "form",
        el("h3", "Try it"),
        *fields,
        el("div", send, stop, class_="actions"),
        result,
        data_verb=verb,
        data_path=path,
    )
