"""The artifacts of runs as their owners see them: lists, and bytes from any place on.

Only what an accepted result names is seen (I22).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, cast

from towline.v1 import run_service_pb2 as pb
from towline_controlplane.blobs import Blobs
from towline_controlplane.errors import InvalidArgument, NotFound, Unavailable
from towline_controlplane.services import convert
from towline_controlplane.services.callers import visible_owner
from towline_controlplane.services.checks import found
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size
from towline_controlplane.store import artifacts, runs
from towline_controlplane.store.artifacts import MadeArtifact
from towline_controlplane.store.database import Database, Transaction

_LIMITS: Final = PageLimits(default=500, maximum=1_000)


@dataclass(frozen=True, slots=True)
class RunArtifacts:
    """Lists and streams artifacts."""

    database: Database
    blobs: Blobs

    async def list(self, request: pb.ListArtifactsRequest) -> pb.ListArtifactsResponse:
        """Returns a page of a step's or a run's artifacts."""
        _check_attempt(request.attempt)
        owner_id = visible_owner()
        size = page_size(request.page_size, _LIMITS)
        query = ("ListArtifacts", request.run_id, request.node_id, str(request.attempt))
        after = cast("tuple[str, str] | None", decode_token(request.page_token, (str, str), *query))

        def read(tx: Transaction) -> pb.ListArtifactsResponse:
            run = found(runs.get_run(tx, request.run_id, owner_id), "run", request.run_id)
            page = gather(
                lambda key, limit: artifacts.list_artifacts(
                    tx, run.id, request.node_id or None, request.attempt, cast("tuple[str, str] | None", key), limit
                ),
                lambda row: (row.artifact.node_id, row.artifact.name),
                after,
                size,
                lambda row: len(row.artifact.name),
            )
            return pb.ListArtifactsResponse(
                artifacts=[convert.artifact(row) for row in page.rows],
                next_page_token=encode_token(page.next_key, *query),
            )

        return await self.database.read(read)

    async def download(self, request: pb.DownloadArtifactRequest) -> AsyncIterator[pb.DownloadArtifactResponse]:
        """Streams what an artifact is, then its bytes from an offset on."""
        _check_attempt(request.attempt)
        if request.limit < 0:
            raise InvalidArgument.of("limit", "must not be negative")
        owner_id = visible_owner()

        def read(tx: Transaction) -> MadeArtifact:
            run = found(runs.get_run(tx, request.run_id, owner_id), "run", request.run_id)
            row = artifacts.find_artifact(tx, run.id, request.node_id, request.attempt, request.name)
            return found(row, "artifact", request.name)

        row = await self.database.read(read)
        yield pb.DownloadArtifactResponse(artifact=convert.artifact(row))
        size, offset = row.artifact.size_bytes, request.offset
        begin = max(size + offset, 0) if offset < 0 else min(offset, size)
        left = min(request.limit or size, size - begin)
        if not left:
            return
        try:
            async for chunk in self.blobs.open(row.artifact.digest, begin, left if left < size else None):
                yield pb.DownloadArtifactResponse(chunk=chunk)
        except NotFound as error:
            raise Unavailable(f"the artifact cannot be read: {error.message}") from error


def _check_attempt(number: int) -> None:
    if number < 0:
        raise InvalidArgument.of("attempt", "must not be negative")
