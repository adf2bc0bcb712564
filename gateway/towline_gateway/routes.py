"""The routes of the API, derived from the descriptors: every method with `google.api.http` and nothing else.

Refuses at start what could only fail later: a path variable, body or response field that the messages do not have,
two methods under one route, and bidirectional streams.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from google.api import http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from towline_gateway import contract
from towline_gateway.templates import Template, parse_template


class Kind(Enum):
    """How a method moves messages."""

    UNARY = auto()
    UPLOAD = auto()
    STREAM = auto()
    DOWNLOAD = auto()
    """A stream of the bytes of one file: its `response_body` is a bytes field."""


_KINDS = {(False, False): Kind.UNARY, (True, False): Kind.UPLOAD, (False, True): Kind.STREAM}
_CREATING = ("Create", "Register", "Push", "StartRun")


@dataclass(frozen=True, slots=True)
class Binding:
    """One REST route of one method; `body` and `response_body` are field names, `*`, or empty."""

    method: MethodDescriptor
    verb: str
    template: Template
    body: str
    response_body: str

    @property
    def kind(self) -> Kind:
        """Whether the route is a plain call, an upload, a stream or a download."""
        kind = _KINDS[self.method.client_streaming, self.method.server_streaming]
        is_file = kind is Kind.STREAM and _is_octets(self.method.output_type, self.response_body)
        return Kind.DOWNLOAD if is_file else kind

    @property
    def taken_from_headers(self) -> frozenset[str]:
        """Fields of the request that no query parameter sets: of a file, `Range` says which bytes."""
        return frozenset({"offset", "limit"} if self.kind is Kind.DOWNLOAD else ())

    @property
    def success(self) -> int:
        """HTTP status of success: 201 where something comes into being."""
        return 201 if self.method.name.startswith(_CREATING) else 200


@dataclass(frozen=True, slots=True)
class Match:
    """A binding and the values of its path variables."""

    binding: Binding
    values: tuple[str, ...]


class RouteTable:
    """Finds the binding of a request; fixed path segments win over variables."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self.bindings = tuple(sorted(bindings, key=lambda each: (each.template.specificity, each.template.text)))
        self._by_depth: dict[int, list[Binding]] = {}
        for binding in self.bindings:
            self._by_depth.setdefault(binding.template.text.count("/"), []).append(binding)
        self._deep = [binding for binding in self.bindings if binding.template.takes_rest]

    def find(self, raw_path: str) -> dict[str, Match]:
        """All that the path offers, by HTTP method; empty when there is no such route."""
        offers: dict[str, Match] = {}
        for binding in (*self._by_depth.get(raw_path.count("/"), ()), *self._deep):
            values = binding.template.match(raw_path)
            if values is not None:
                offers.setdefault(binding.verb, Match(binding, values))
        if "GET" in offers:
            offers.setdefault("HEAD", offers["GET"])
        return offers


def derive(services: Iterable[ServiceDescriptor]) -> RouteTable:
    """The table of the services; raises `ValueError` when an option does not fit its messages."""
    bindings = [
        _binding(method, rule)
        for service in services
        for method in service.methods
        for rule in contract.http_rules(method)
    ]
    routes = [(each.verb, each.template.pattern.pattern) for each in bindings]
    for binding, route in zip(bindings, routes, strict=True):
        if routes.count(route) > 1:
            raise ValueError(f"{binding.verb} {binding.template.text} belongs to more than one method")
    return RouteTable(bindings)


def _binding(method: MethodDescriptor, rule: http_pb2.HttpRule) -> Binding:
    pattern = rule.WhichOneof("pattern")
    if pattern is None or pattern == "custom":
        raise ValueError(f"{method.full_name}: the rule needs get, put, post, delete or patch")
    if (method.client_streaming, method.server_streaming) not in _KINDS:
        raise ValueError(f"{method.full_name}: a bidirectional stream has no REST form")
    binding = Binding(method, pattern.upper(), parse_template(getattr(rule, pattern)), rule.body, rule.response_body)
    _check(binding)
    return binding


def _check(binding: Binding) -> None:
    method = binding.method
    for path in binding.template.variables:
        field = field_at(method.input_type, path)
        if field.message_type or field.is_repeated:
            raise ValueError(f"{method.full_name}: {path} is not a single value")
    if binding.body not in {"", "*"}:
        field_at(method.input_type, binding.body)
    if binding.response_body and not _is_octets(method.output_type, binding.response_body):
        field = field_at(method.output_type, binding.response_body)
        if field.message_type is None or field.is_repeated:
            raise ValueError(f"{method.full_name}: {field.name} is not a single message")
    if binding.kind is Kind.UPLOAD and not _is_octets(method.input_type, binding.body):
        raise ValueError(f"{method.full_name}: an upload needs a bytes field as its body")


def _is_octets(message: Descriptor, name: str) -> bool:
    return name not in {"", "*"} and field_at(message, name).type == FieldDescriptor.TYPE_BYTES


def field_at(message: Descriptor, path: str) -> FieldDescriptor:
    """The field at a dotted path of proto names; raises `ValueError` when there is none."""
    *parents, last = path.split(".")
    here: Descriptor | None = message
    for name in parents:
        parent = here.fields_by_name.get(name) if here else None
        here = parent.message_type if parent and not parent.is_repeated else None
    field = here.fields_by_name.get(last) if here else None
    if field is None:
        raise ValueError(f"{message.full_name} has no field {path}")
    return field


def json_path(message: Descriptor, path: str) -> tuple[str, ...]:
    """The same path in JSON names."""
    names = path.split(".")
    return tuple(field_at(message, ".".join(names[: depth + 1])).json_name for depth in range(len(names)))
