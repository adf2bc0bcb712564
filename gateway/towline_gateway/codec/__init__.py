"""The gateway's own JSON codec: protobuf messages to JSON and back, with exact faults.

Owned here because errors must name the field path as the caller wrote it; `google.protobuf.json_format` stops at the
first fault and names no index.
"""

from towline_gateway.codec.decode import decode
from towline_gateway.codec.encode import encode, message_writer
from towline_gateway.codec.json_text import Json, MalformedJsonError, parse, render, text_of
from towline_gateway.codec.violations import InvalidFieldsError, Violation, Violations

__all__ = [
    "InvalidFieldsError",
    "Json",
    "MalformedJsonError",
    "Violation",
    "Violations",
    "decode",
    "encode",
    "message_writer",
    "parse",
    "render",
    "text_of",
]
