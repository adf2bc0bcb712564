"""A conversation of an agent with its control plane: message by message, as bytes, in the order of the answers."""

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("conversation.json")
SERVICE = "towline.v1.AgentService"
DAG: dict[str, Any] = {
    "nodes": [
        {"id": "text", "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase", "text": "hello"}},
        {"id": "shell", "type": "SHELL", "config": {"command": "echo ${{ nodes.text.output.text }}; echo e >&2"}},
        {
            "id": "fails",
            "type": "SHELL",
            "config": {"command": "echo failing; exit 75"},
            "retryConfig": {"maxAttempts": 2, "backoffMs": 1},
        },
        {
            "id": "handles",
            "type": "PYTHON",
            "config": {"code": "def main(config, inputs):\n    return {'handled': True}"},
        },
    ],
    "edges": [
        {"from": "text", "to": "shell"},
        {"from": "shell", "to": "fails"},
        {"from": "fails", "to": "handles", "condition": {"type": "ON_FAILURE"}},
    ],
}
"""What is executed meanwhile, one step after the other."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer; of a stream, one message each way."""

    method: str
    request: bytes
    response: bytes


class Contract:
    """The messages as the agent of that time knew them, from the baseline that its release has left."""

    def __init__(self) -> None:
        pool = DescriptorPool()
        for file in FileDescriptorSet.FromString((ROOT / "protos" / "baseline.binpb").read_bytes()).file:
            pool.Add(file)  # pyright: ignore[reportDeprecated] - it wants what we have
        self._service = pool.FindServiceByName(SERVICE)

    def request(self, method: str, data: bytes) -> Message:
        """Returns a request of a method."""
        return GetMessageClass(self._service.FindMethodByName(method).input_type).FromString(data)

    def response(self, method: str, data: bytes) -> Message:
        """Returns an answer of a method."""
        return GetMessageClass(self._service.FindMethodByName(method).output_type).FromString(data)


def save(exchanges: list[Exchange], file: Path = FILE) -> None:
    """Writes a conversation."""
    document = [_each(exchange, lambda data: base64.b64encode(data).decode()) for exchange in exchanges]
    file.write_text(json.dumps(document, indent=1) + "\n")


def load(file: Path = FILE) -> list[Exchange]:
    """Reads a conversation."""
    return [Exchange(**_each(entry, base64.b64decode)) for entry in json.loads(file.read_text())]


def _each(entry: Exchange | dict[str, Any], turn: Callable[[Any], Any]) -> dict[str, Any]:
    fields = asdict(entry) if isinstance(entry, Exchange) else entry
    return {name: value if name == "method" else turn(value) for name, value in fields.items()}
