"""Large outputs: in the blob store under their digest, and fetched again for whoever reads them.

A row of a step holds an output up to 256 KiB itself. Commits never wait for blobs: a large output is stored before its
report is submitted, and fetched after the transaction that found its digest.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from towline_controlplane.blobs import Blobs, digest_of
from towline_controlplane.errors import LimitExceeded
from towline_controlplane.model import Output
from towline_controlplane.store import released_blobs
from towline_controlplane.store.database import Database
from towline_controlplane.submissions import Report
from towline_dag.limits import MAX_INLINE_OUTPUT_BYTES


@dataclass(slots=True)
class Outputs:
    """Stores and fetches; the outputs used last, `cache_bytes` of them, are kept at hand."""

    database: Database
    blobs: Blobs
    cache_bytes: int = 64 << 20
    _cache: OrderedDict[str, bytes] = field(default_factory=OrderedDict[str, bytes])
    _cached: int = 0

    async def keep_large(self, reports: Sequence[Report]) -> list[Report]:
        """Returns the reports with their large outputs replaced by digests, once these are durable."""
        texts = {index: report.end.output.encode() for index, report in enumerate(reports) if report.end.output}
        large = {index: data for index, data in texts.items() if len(data) > MAX_INLINE_OUTPUT_BYTES}
        kept = list(reports)
        if not large:
            return kept
        digests = {digest_of(data) for data in large.values()}
        await self.database.write(lambda tx: released_blobs.note_use(tx, digests))
        for index, data in large.items():
            digest = await self.blobs.put_bytes(data)
            self._remember(digest, data)
            kept[index] = replace(reports[index], end=replace(reports[index].end, output=None, output_digest=digest))
        return kept

    async def texts(self, outputs: Mapping[str, Output], limit: int) -> dict[str, str]:
        """Returns the JSON texts of outputs.

        Raises LimitExceeded if they have more than `limit` bytes together, NotFound or Unavailable for one that cannot
        be read.
        """
        texts: dict[str, str] = {}
        left = limit
        for name, output in outputs.items():
            data = await self._data(output, left)
            left -= len(data)
            if left < 0:
                raise LimitExceeded(f"the outputs have more than {limit} bytes together")
            texts[name] = data.decode()
        return texts

    async def _data(self, output: Output, limit: int) -> bytes:
        if output.digest is None:
            return (output.text or "null").encode()
        cached = self._cache.get(output.digest)
        if cached is not None:
            self._cache.move_to_end(output.digest)
            return cached
        data = await self.blobs.read(output.digest, limit)
        self._remember(output.digest, data)
        return data

    def _remember(self, digest: str, data: bytes) -> None:
        if digest in self._cache:
            return
        self._cache[digest] = data
        self._cached += len(data)
        while self._cached > self.cache_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached -= len(dropped)
