"""Who may call which method, read from the `towline.v1.access` option of the contract. Default: nobody."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from towline.v1 import access_pb2
from towline.v1.access_pb2 import ADMIN, AGENT, ANY_KEY, NO_KEY, PUBLIC, USER, Access, KeyAccess
from towline_controlplane.api_keys import ADMIN_SCOPE
from towline_controlplane.call_limits import RouteClass

_ACCESS: Final[Any] = access_pb2.access
_KEY_ACCESS: Final[Any] = access_pb2.key_access
_HTTP: Final[Any] = annotations_pb2.http
# Infrastructure that anybody may ask, at any time, with descriptors that are not ours to annotate.
OPEN_SERVICES: Final = frozenset({"grpc.health.v1.Health"})


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What the contract says of its methods, by their paths."""

    access: Mapping[str, Access]
    key_scopes: Mapping[str, str]
    mutations: frozenset[str]
    classes: Mapping[str, RouteClass]
    """Agents' methods have none: they are not limited."""

    @classmethod
    def of(cls, services: Sequence[ServiceDescriptor], public: Iterable[str] = ()) -> "AccessRules":
        """Reads the contract, and opens methods that are not of it to anybody; raises AccessOptionMissing."""
        access = {**check_access_options(services), **dict.fromkeys(public, PUBLIC)}
        return cls(access, key_scopes(services), mutations(services), route_classes(services))


class AccessOptionMissing(Exception):
    """A method says not who may call it: the server must not start."""


def check_access_options(services: Iterable[ServiceDescriptor]) -> Mapping[str, Access]:
    """Returns the access of each method by its full path; raises AccessOptionMissing if a method has none."""
    table: dict[str, Access] = {}
    for method in (method for service in services for method in service.methods):
        access: Access = method.GetOptions().Extensions[_ACCESS]
        if access == access_pb2.ACCESS_UNSPECIFIED:
            raise AccessOptionMissing(f"{method.full_name} has no towline.v1.access option")
        table[method_path(method)] = access
    return table


def key_scopes(services: Iterable[ServiceDescriptor]) -> Mapping[str, str]:
    """Returns the scope that an API key needs for a method, by its path: empty if any key will do.

    Methods that are not in it are closed to API keys.
    """
    table: dict[str, str] = {}
    for service in services:
        for method in service.methods:
            access: Access = method.GetOptions().Extensions[_ACCESS]
            rule: KeyAccess = method.GetOptions().Extensions[_KEY_ACCESS]
            if access in (USER, ADMIN) and rule != NO_KEY:
                action = "read" if method.GetOptions().Extensions[_HTTP].get else "write"
                by_scope = ADMIN_SCOPE if access == ADMIN else f"{_noun(service)}:{action}"
                table[method_path(method)] = "" if rule == ANY_KEY else by_scope
    return table


def route_classes(services: Iterable[ServiceDescriptor]) -> Mapping[str, RouteClass]:
    """Returns what methods count as when calls are limited, by their paths."""
    return {
        method_path(method): _route_class(method)
        for service in services
        for method in service.methods
        if method.GetOptions().Extensions[_ACCESS] != AGENT
    }


def _route_class(method: MethodDescriptor) -> RouteClass:
    options = method.GetOptions()
    if options.Extensions[_ACCESS] == PUBLIC and options.HasExtension(_HTTP):
        return RouteClass.SIGN_IN
    return RouteClass.READ if options.Extensions[_HTTP].get else RouteClass.WRITE


def scope_nouns(services: Iterable[ServiceDescriptor]) -> frozenset[str]:
    """Returns the nouns that scopes of API keys may name."""
    scopes = key_scopes(services).values()
    return frozenset(scope.partition(":")[0] for scope in scopes if ":" in scope)


def _noun(service: ServiceDescriptor) -> str:
    name = service.name.removesuffix("Service")
    return f"{name[:1].lower()}{name[1:]}s"


def mutations(services: Iterable[ServiceDescriptor]) -> frozenset[str]:
    """Returns the paths of the methods that change something: all that REST does not GET, but those of agents."""
    return frozenset(
        method_path(method)
        for service in services
        for method in service.methods
        if method.GetOptions().Extensions[_ACCESS] != AGENT and not method.GetOptions().Extensions[_HTTP].get
    )


def method_path(method: MethodDescriptor) -> str:
    """Returns the path by which gRPC calls a method."""
    service = method.containing_service
    return f"/{service.full_name}/{method.name}" if service else ""
