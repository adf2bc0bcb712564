"""What the server asks of connections: sizes of messages, pings, and an age at which clients look for a replica anew.

`docs/api.md` tells clients what this says; those of Towline itself are held against it by a test.
"""

from typing import Final

MAX_REQUEST_BYTES: Final = 16 << 20
# Free JSON grows up to fivefold on the wire; clients set their receive limit to this.
MAX_ANSWER_BYTES: Final = 32 << 20
KEEPALIVE_SECONDS: Final = 30.0
KEEPALIVE_TIMEOUT_SECONDS: Final = 15.0
MIN_PING_SECONDS: Final = 10.0
"""A client that pings more often than this is sent away: GOAWAY, ENHANCE_YOUR_CALM."""


def channel_options(age_seconds: float, grace_seconds: float) -> list[tuple[str, int]]:
    """Returns the options of a server; with an age of 0 connections live as long as their clients want."""
    ageing = [
        # gRPC spreads the age by a tenth up and down, so that clients do not come back all at once.
        ("grpc.max_connection_age_ms", _milliseconds(age_seconds)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(grace_seconds)),
    ]
    return [
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
        ("grpc.keepalive_time_ms", _milliseconds(KEEPALIVE_SECONDS)),
        ("grpc.keepalive_timeout_ms", _milliseconds(KEEPALIVE_TIMEOUT_SECONDS)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _milliseconds(MIN_PING_SECONDS)),
        ("grpc.keepalive_permit_without_calls", 1),
        # A second process on the same port must fail, not share it.
        ("grpc.so_reuseport", 0),
        *(ageing if age_seconds else []),
    ]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
