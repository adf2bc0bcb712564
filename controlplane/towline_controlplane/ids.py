"""New identifiers: UUIDv7, so that ids sort by their time of creation and index pages stay dense."""

import os
import time
import uuid


def new_id() -> str:
    """Returns a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, the rest random."""
    value = int.from_bytes(os.urandom(16), "big")
    value &= ~(0xFFFF_FFFF_FFFF << 80) & ~(0xF << 76) & ~(0x3 << 62)
    value |= (time.time_ns() // 1_000_000 << 80) | 0x7 << 76 | 0x2 << 62
    return str(uuid.UUID(int=value))
