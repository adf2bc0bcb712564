"""Reads the logs of a run in the order in which they arrived, wherever they lie.

Chunks in the database and archived ones are merged by arrival, which is the order that a reader of all nodes sees: by
the time at which the control plane took a chunk, and within an attempt as written. Archiving changes neither the order
nor what a cursor means.
"""

import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from towline_controlplane.log_archive import LogArchive
from towline_controlplane.store import log_archives, logs
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.log_archives import ArchivedLog
from towline_controlplane.store.logs import LogChunk, LogPosition

_LOOK_AHEAD: Final = 64


@dataclass(frozen=True, slots=True)
class LogLook:
    """What one snapshot of the store tells of the logs behind a cursor: chunks, and objects that may hold more.

    It is all there is before the arrival `bound`; None means to the end.
    """

    after: LogPosition | None
    rows: list[LogChunk]
    archives: list[ArchivedLog]
    bound: int | None


def look(tx: Transaction, run_id: str, node_id: str | None, after: LogPosition | None, limit_bytes: int) -> LogLook:
    """Returns what follows a cursor in the logs of one node, or of all (None), at least `limit_bytes` if there are."""
    arrival = 0 if after is None else after.arrival
    archives, bound = log_archives.archives_from(tx, run_id, node_id, arrival, _LOOK_AHEAD)
    return LogLook(after, logs.read_chunks(tx, run_id, node_id, after, limit_bytes), archives, bound)


async def read(archive: LogArchive, look: LogLook, limit_bytes: int) -> list[LogChunk]:
    """Returns the next chunks in the order of their arrival, up to the one that reaches `limit_bytes`.

    Raises NotFound or Unavailable if an object cannot be read.
    """
    if not look.archives:
        return look.rows
    sources = [_Source(_listed(look.rows), 0)]
    sources += [_Source(archive.chunks(each, look.after), each.first_arrival) for each in look.archives]
    waiting = [(source.arrival, number) for number, source in enumerate(sources)]
    heapq.heapify(waiting)
    found: list[LogChunk] = []
    total = 0
    while waiting and total < limit_bytes:
        arrival, number = heapq.heappop(waiting)
        if look.bound is not None and arrival >= look.bound:
            break
        chunk = sources[number].chunk
        if chunk is not None:
            found.append(chunk)
            total += len(chunk.data)
        if await sources[number].advance():
            heapq.heappush(waiting, (sources[number].arrival, number))
    return found


class _Source:
    """Chunks in their order, one at hand; of one that was not begun only is known before which arrival none comes."""

    def __init__(self, chunks: AsyncIterator[LogChunk], arrival: int) -> None:
        self.arrival = arrival
        self.chunk: LogChunk | None = None
        self._chunks = chunks

    async def advance(self) -> bool:
        """Takes the next chunk in hand; False if there is none."""
        self.chunk = await anext(self._chunks, None)
        if self.chunk is None:
            return False
        self.arrival = self.chunk.arrival
        return True


async def _listed(chunks: list[LogChunk]) -> AsyncIterator[LogChunk]:
    for chunk in chunks:
        yield chunk
