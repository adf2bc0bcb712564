"""A control plane for tests of programs that call the API: in this process, in memory, on a real gRPC server.

    def test_my_program() -> None:
        with FakeControlPlane({"GREET": lambda config: {"text": f"hello {config['name']}"}}) as fake:
            my_program(fake.address, fake.token)
            (run,) = fake.runs()
            assert run.state == Run.SUCCEEDED

It knows users, workflows, versions, runs, steps, histories and logs, and answers UNIMPLEMENTED to the rest. One
scenario of the suite passes on it and on the real one.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from towline.v1 import auth_service_pb2, run_service_pb2, workflow_service_pb2
from towline.v1.run_pb2 import Run
from towline_sdk.testing.fake_run import Plugins
from towline_sdk.testing.fake_services import FakeServices, Refused

THREADS: Final = 32
_CONTRACT: Final = (auth_service_pb2, run_service_pb2, workflow_service_pb2)


class FakeControlPlane:
    """Serves on a free port while it is entered; `plugins` are the functions that steps call, by type.

    `token` is that of a user who is there from the start.
    """

    def __init__(self, plugins: Plugins | None = None) -> None:
        self._services = FakeServices(plugins or {})
        self._server = grpc.server(ThreadPoolExecutor(THREADS, "fake control plane"))
        for module in _CONTRACT:
            for service in module.DESCRIPTOR.services_by_name.values():
                handlers = {method.name: self._handler(method) for method in service.methods}
                generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
                self._server.add_generic_rpc_handlers((generic,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.token = self._services.sign_up("user@example.com", "a password of tests", "User")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()

    def runs(self) -> list[Run]:
        """Returns all runs, oldest first, once none of their plugins runs any more."""
        for each in [*self._services.runs.values()]:
            each.wait()
        return [each.run for each in self._services.runs.values()]

    def _handler(self, method: MethodDescriptor) -> "grpc.RpcMethodHandler[Any, Any]":
        request_class, answer_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return self._services.answer(method.name, request, _token(context))
            except Refused as refusal:
                _abort(context, refusal)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from self._services.answer(method.name, request, _token(context))
            except Refused as refusal:
                _abort(context, refusal)

        make: Any = (
            grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        )
        behaviour = stream if method.server_streaming else answer
        return make(behaviour, request_class.FromString, answer_class.SerializeToString)


def _token(context: grpc.ServicerContext) -> str:
    metadata: Mapping[str, Any] = {str(key): value for key, value in context.invocation_metadata()}
    return str(metadata.get("authorization", "")).removeprefix("Bearer ")


def _abort(context: grpc.ServicerContext, refusal: Refused) -> NoReturn:
    code = grpc.StatusCode[refusal.status]
    status = status_pb2.Status(code=code.value[0], message=refusal.message)
    bad = error_details_pb2.BadRequest()
    for each in refusal.violations:
        bad.field_violations.add(field=each.field, description=each.message)
    for detail in (error_details_pb2.ErrorInfo(reason=refusal.reason, domain="towline.dev"), bad):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, refusal.message)
