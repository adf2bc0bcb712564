"""An HTTP request as a request message, by the rule of its binding: path, query, headers and body.

All four are put into one JSON tree, which is decoded once: a fault anywhere is named by its field, together with all
others. Refuses unknown parameters, and a field that two places set to different values.
"""

from collections.abc import Mapping
from urllib.parse import parse_qs

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from starlette.requests import Request

from towline_gateway import bodies, contract, etags, problems
from towline_gateway.codec import Json, Violations, decode, parse
from towline_gateway.codec.decode import is_map
from towline_gateway.codec.scalars import json_of_text
from towline_gateway.codec.well_known import FILLS, TEXTUAL
from towline_gateway.routes import Binding, Kind, field_at, json_path

_MAX_PARAMETERS = 100


class Transcoder:
    """Builds the request messages of one binding."""

    __slots__ = ("_binding", "_body_name", "_class", "_has_cursor", "_has_etag", "_has_request_id", "_path_fields")

    def __init__(self, binding: Binding) -> None:
        request = binding.method.input_type
        self._binding = binding
        self._class = contract.message_class(request)
        self._path_fields = [(json_path(request, each), field_at(request, each)) for each in binding.template.variables]
        self._body_name = field_at(request, binding.body).json_name if binding.body not in {"", "*"} else ""
        self._has_etag = etags.has_etag(request)
        self._has_request_id = "request_id" in request.fields_by_name
        self._has_cursor = binding.kind is Kind.STREAM and "cursor" in request.fields_by_name

    async def message(self, request: Request, values: tuple[str, ...]) -> Message:
        """Returns the message that the request asks to send, or raises a problem that names every fault."""
        tree = self._body_tree(request, await bodies.read_document(request))
        violations = Violations()
        if isinstance(tree, dict):
            for (path, field), value in zip(self._path_fields, values, strict=True):
                _place(tree, path, json_of_text(field, value), violations)
            self._place_query(tree, request.scope["query_string"], violations)
            self._place_headers(tree, request.headers, violations)
        return decode(self._class, tree, violations)

    def _body_tree(self, request: Request, body: bytes) -> Json:
        text = body.strip()
        if not text:
            return {}
        if not self._binding.body:
            if text == b"{}":  # what many clients send for "nothing"
                return {}
            raise problems.invalid("The route takes no body.")
        bodies.require_media_type(request, bodies.JSON)
        return {self._body_name: parse(body)} if self._body_name else parse(body)

    def _place_query(self, tree: dict[str, Json], query: bytes, violations: Violations) -> None:
        for name, texts in _parameters(query).items():
            field = None if self._binding.body == "*" else self._parameter_field(name)
            if field is None:
                violations.add(name[:100], "is not a known parameter")
            elif field.is_repeated:
                _place(tree, tuple(name.split(".")), [json_of_text(field, text) for text in texts], violations)
            elif len(texts) > 1:
                violations.add(name, "is given more than once")
            else:
                _place(tree, tuple(name.split(".")), json_of_text(field, texts[0]), violations)

    def _parameter_field(self, name: str) -> FieldDescriptor | None:
        """The field that a parameter names, or None when it names none that a query can carry."""
        here, field = self._binding.method.input_type, None
        if name in self._binding.taken_from_headers:
            return None
        for part in name.split("."):
            if here is None or here.full_name in FILLS:
                return None
            field = next((each for each in here.fields if each.json_name == part), None)
            if field is None:
                return None
            here = None if field.is_repeated else field.message_type
        return field if field and is_parameter(field) else None

    def _place_headers(self, tree: dict[str, Json], headers: Mapping[str, str], violations: Violations) -> None:
        if self._has_request_id and (key := headers.get("idempotency-key")):
            _place(tree, ("requestId",), key, violations)
        if self._has_etag and (header := headers.get("if-match", etags.ANY)) != etags.ANY:
            tag = etags.strong(header)
            if tag is None:
                violations.add("If-Match", 'must be one entity tag in double quotes, or "*"')
            else:
                _place(tree, (etags.FIELD,), tag, violations)
        if self._has_cursor and (cursor := headers.get("last-event-id")):
            tree["cursor"] = cursor  # newer than the one in the address, which a reconnecting client repeats


def is_parameter(field: FieldDescriptor) -> bool:
    """Tells whether a query parameter can carry the field: scalars, enums, times and durations."""
    return field.message_type is None or (not is_map(field) and field.message_type.full_name in TEXTUAL)


def _parameters(query: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise problems.invalid("The query is not UTF-8.") from None
    except ValueError:
        raise problems.invalid(f"The query has more than {_MAX_PARAMETERS} parameters.") from None


def _place(tree: dict[str, Json], path: tuple[str, ...], value: Json, violations: Violations) -> None:
    """Sets a value deep in the tree; one that is there already must be equal."""
    *parents, last = path
    for name in parents:
        below = tree.setdefault(name, {})
        if not isinstance(below, dict):
            return  # the decoder names it: an object is wanted there
        tree = below
    if tree.setdefault(last, value) != value:
        violations.add(".".join(path), "is given twice, with different values")
