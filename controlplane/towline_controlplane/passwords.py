"""Passwords: bcrypt in a bounded pool of threads.

Refuses what bcrypt would cut off silently (more than 72 bytes) and more waiting checks than the pool can work off
soon. A check without a hash costs as much as one with it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import bcrypt

from towline_controlplane.errors import InvalidArgument, Unavailable

MIN_BYTES: Final = 8
MAX_BYTES: Final = 72
MAX_WAITING: Final = 64

T = TypeVar("T")


class Passwords:
    """Hashes and checks passwords; `cost` is bcrypt's work factor."""

    def __init__(self, cost: int = 12, threads: int = 2) -> None:
        self._cost = cost
        # Well-formed, and the hash of no password that anybody knows.
        self._nobody = f"$2b${cost:02d}${'.' * 53}"
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")
        self._waiting = 0

    async def hash(self, password: str, field: str = "password") -> str:
        """Returns the hash to store; raises InvalidArgument for `field` if it is not 8 to 72 bytes long."""
        encoded = password.encode()
        if not MIN_BYTES <= len(encoded) <= MAX_BYTES:
            raise InvalidArgument.of(field, f"must be {MIN_BYTES} to {MAX_BYTES} bytes long")
        return await self._run(lambda: bcrypt.hashpw(encoded, bcrypt.gensalt(self._cost)).decode())

    async def matches(self, password: str, stored_hash: str | None) -> bool:
        """Tells whether the password has this hash; without a hash it takes as long and is False."""
        encoded = password.encode()
        possible = stored_hash is not None and len(encoded) <= MAX_BYTES
        against = (stored_hash or self._nobody).encode()
        return await self._run(lambda: bcrypt.checkpw(encoded[:MAX_BYTES], against)) and possible

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many passwords are being checked; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1
