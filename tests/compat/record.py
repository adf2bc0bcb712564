"""Records the conversation of the last release with itself: `python tests/compat/record.py`, once for each release."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / "system"), str(ROOT / "tests" / "compat")]

import conversation  # noqa: E402 - found on the path that was just set
import last_release  # noqa: E402
from conversation import Exchange  # noqa: E402
from processes import Installation, Rest  # noqa: E402

STREAMS = {"AppendLogs"}


class Recorder(grpc.GenericRpcHandler):
    """Passes every call on to a control plane and keeps what was said."""

    def __init__(self, server: str) -> None:
        self.exchanges: list[Exchange] = []
        self._channel: Any = grpc.aio.insecure_channel(server)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the handler of a call."""
        method = handler_call_details.method
        name = method.rpartition("/")[2]
        metadata = tuple((key, value) for key, value in handler_call_details.invocation_metadata or ())
        kept = [(key, value) for key, value in metadata if key == "authorization"]
        if name in STREAMS:

            async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
                call: Any = self._channel.stream_stream(method)(metadata=kept)
                async for request in requests:
                    await call.write(request)
                    response = await call.read()
                    self.exchanges.append(Exchange(name, request, response))
                    yield response

            return _untyped(grpc).stream_stream_rpc_method_handler(stream)

        async def unary(request: bytes, context: Any) -> bytes:
            try:
                response: bytes = await self._channel.unary_unary(method)(request, metadata=kept)
            except grpc.aio.AioRpcError as error:
                context.set_trailing_metadata(tuple(error.trailing_metadata() or ()))
                await context.abort(error.code(), error.details() or "")
                raise
            self.exchanges.append(Exchange(name, request, response))
            return response

        return _untyped(grpc).unary_unary_rpc_method_handler(unary)


def _untyped(bytes_only: object) -> Any:
    """Returns what the stubs of grpcio want a serializer for; messages pass here as they are."""
    return bytes_only


async def record(folder: Path) -> list[Exchange]:
    """Returns what the agent of the last release and its control plane say while the DAG is executed."""
    installation = Installation(folder, python=last_release.unpack(folder / "release").python)
    try:
        await installation.start_control_plane()
        await installation.start_gateway()
        recorder, server = Recorder(installation.grpc), grpc.aio.server()
        server.add_generic_rpc_handlers((recorder,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await installation.start_agent(TOWLINE_SERVER=f"127.0.0.1:{port}", TOWLINE_AGENT_SLOTS="1")
        rest = Rest(installation.http)
        await asyncio.to_thread(rest.sign_in)
        workflow = await asyncio.to_thread(rest.post, "/workflows", {"name": "recorded", "dag": conversation.DAG})
        run = await asyncio.to_thread(rest.post, f"/workflows/{workflow['id']}/execute", {"input": {"x": 1}})
        history = await asyncio.to_thread(lambda: list(rest.events(run["id"])))
        assert history[-1]["type"] == "RUN_SUCCEEDED", history
        await installation.parts["agent-1"].stop(60)
        await server.stop(5)
        return recorder.exchanges
    finally:
        await installation.abandon()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        conversation.save(asyncio.run(record(Path(scratch))))
