"""What reflection tells tools such as grpcurl: the contract as the compiler wrote it.

The generated modules leave out the JSON names, and the protobuf runtime does not find a method by its full name; an
operator's tool wants both, and the types of our error details too.
"""

from importlib.resources import files
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2


class DescribedContract:
    """A descriptor pool for the reflection service."""

    def __init__(self) -> None:
        self._pool = DescriptorPool()
        compiled = FileDescriptorSet.FromString((files("towline.v1") / "descriptors.binpb").read_bytes())
        for file in compiled.file:
            self._pool.Add(file)
        for module in (health_pb2, reflection_pb2, error_details_pb2):
            self._pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """Returns the file that defines a symbol, be it a method; raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            return found.methods_by_name[method].containing_service.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)
