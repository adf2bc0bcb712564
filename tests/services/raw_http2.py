"""HTTP/2 frame by frame, for what a gRPC client would not do."""

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
ENHANCE_YOUR_CALM: Final = 11


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        """Tells whether nothing comes after it on its stream."""
        return self.kind == RST_STREAM or (self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM))


class Connection:
    """One connection that does what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unsent = bytearray(PREFACE)
        self.send(SETTINGS, 0, 0, b"")

    @classmethod
    async def open(cls, address: str) -> "Connection":
        """Connects, and says hello."""
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Sends a frame, together with all others that are sent before the next answer is awaited."""
        self._unsent += struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def call(self, path: str, headers: Mapping[str, str], message: bytes) -> None:
        """Sends a whole unary call as stream 1."""
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "content-type": "application/grpc",
            "te": "trailers",
            **headers,
        }
        self.send(HEADERS, END_HEADERS, 1, b"".join(_field(*pair) for pair in fields.items()))
        self.send(DATA, END_STREAM, 1, struct.pack(">BI", 0, len(message)) + message)

    async def frames_until(self, kind: int | None) -> list[Frame]:
        """Returns what comes up to the first frame of this kind, without one up to the end of stream 1."""
        # In one piece: a server that hangs up has then read all, and its last words are not lost in a reset.
        self._writer.write(bytes(self._unsent))
        self._unsent.clear()
        frames: list[Frame] = []
        while not frames or (frames[-1].kind != kind if kind is not None else not frames[-1].ends_stream):
            head = await self._reader.readexactly(9)
            length = int.from_bytes(head[:3])
            kind_, flags, stream = struct.unpack(">BBI", head[3:])
            frames.append(Frame(kind_, flags, stream, await self._reader.readexactly(length)))
        return frames

    def close(self) -> None:
        """Hangs up."""
        self._writer.close()


def _field(name: str, value: str) -> bytes:
    # HPACK: a literal that is not to be indexed; lengths below 127 are one byte, longer ones continue.
    return b"\x00" + _string(name) + _string(value)


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, coded = len(data) - 127, bytearray([127])
    while rest >= 128:
        coded.append(rest % 128 + 128)
        rest //= 128
    return bytes([*coded, rest]) + data
