"""A fake control plane on a real gRPC server, and the CLI run in this process against it."""

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from towline.v1 import (
    agent_admin_service_pb2,
    audit_service_pb2,
    auth_service_pb2,
    plugin_service_pb2,
    run_service_pb2,
    schedule_service_pb2,
    secret_service_pb2,
    user_service_pb2,
    workflow_service_pb2,
)
from towline_cli.__main__ import run

CONTRACT = (
    agent_admin_service_pb2,
    audit_service_pb2,
    auth_service_pb2,
    plugin_service_pb2,
    run_service_pb2,
    schedule_service_pb2,
    secret_service_pb2,
    user_service_pb2,
    workflow_service_pb2,
)
Answer = Callable[[Any], Any]


@dataclass(frozen=True)
class Call:
    method: str
    request: Any
    metadata: dict[str, str]


class Refusal(Exception):
    """Raised by an answer: the call fails with this status."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str = "no",
        reason: str = "",
        fields: Sequence[tuple[str, str]] = (),
        retry_seconds: int = 0,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.reason, self.fields = code, message, reason, fields
        self.retry_seconds = retry_seconds


@dataclass
class FakeControlPlane:
    """Answers every method with an empty message unless `answers` says otherwise; remembers the calls."""

    address: str = ""
    calls: list[Call] = field(default_factory=list[Call])
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])

    def methods(self) -> list[str]:
        return [call.method for call in self.calls]

    def request(self, method: str) -> Any:
        (call,) = [call for call in self.calls if call.method == method]
        return call.request


@contextmanager
def serving(credentials: grpc.ServerCredentials | None = None) -> Generator[FakeControlPlane]:
    fake = FakeControlPlane()
    server = grpc.server(ThreadPoolExecutor(8))
    for module in CONTRACT:
        for service in module.DESCRIPTOR.services_by_name.values():
            handlers = {method.name: _handler(fake, method) for method in service.methods}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    any_port = "127.0.0.1:0"
    port = server.add_secure_port(any_port, credentials) if credentials else server.add_insecure_port(any_port)
    fake.address = f"127.0.0.1:{port}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(None).wait()


def _handler(fake: FakeControlPlane, method: MethodDescriptor) -> Any:
    request_class, answer_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        kept = list(request) if method.client_streaming else request
        fake.calls.append(Call(method.name, kept, metadata))
        try:
            return fake.answers.get(method.name, lambda _: answer_class())(kept)
        except Refusal as refusal:
            _abort(context, refusal)

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        found = answer(request, context)
        try:
            yield from (() if isinstance(found, answer_class) else found)
        except Refusal as refusal:
            _abort(context, refusal)

    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
    }
    make = kinds[method.client_streaming, method.server_streaming]
    behaviour = stream if method.server_streaming else answer
    return make(behaviour, request_class.FromString, answer_class.SerializeToString)


def _abort(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    status = status_pb2.Status(code=refusal.code.value[0], message=refusal.message)
    if refusal.reason:
        details = [error_details_pb2.ErrorInfo(reason=refusal.reason, domain="towline.dev")]
        violation = error_details_pb2.BadRequest.FieldViolation
        fields = [violation(field=name, description=text) for name, text in refusal.fields]
        retry = error_details_pb2.RetryInfo(retry_delay={"seconds": refusal.retry_seconds})
        more = [error_details_pb2.BadRequest(field_violations=fields)] if fields else []
        for message in (*details, *more, *([retry] if refusal.retry_seconds else [])):
            packed = any_pb2.Any()
            packed.Pack(message)
            status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str


class Terminal:
    """Runs `towline` in this process, as a user of the fake control plane would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, stdin: str = "") -> Result:
        self._monkeypatch.setattr(sys, "argv", ["towline", *arguments])
        self._monkeypatch.setattr(sys, "stdin", StringIO(stdin))
        try:
            code = run()
        except SystemExit as stop:
            code = stop.code or 0
        captured = self._capsys.readouterr()
        return Result(int(code), captured.out, captured.err)
