"""Who may call which method, read from the `towline.v1.access` option of the contract. Default: nobody."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from towline.v1 import access_pb2
from towline.v1.access_pb2 import Access

_ACCESS: Final[Any] = access_pb2.access
_HTTP: Final[Any] = annotations_pb2.http
# Infrastructure that anybody may ask, at any time, with descriptors that are not ours to annotate.
OPEN_SERVICES: Final = frozenset({"grpc.health.v1.Health"})


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


def mutations(services: Iterable[ServiceDescriptor]) -> frozenset[str]:
    """Returns the paths of the public methods that change something: those that REST does not GET."""
    return frozenset(
        method_path(method)
        for service in services
        for method in service.methods
        if method.GetOptions().HasExtension(_HTTP) and not method.GetOptions().Extensions[_HTTP].get
    )


def method_path(method: MethodDescriptor) -> str:
    """Returns the path by which gRPC calls a method."""
    service = method.containing_service
    return f"/{service.full_name}/{method.name}" if service else ""
