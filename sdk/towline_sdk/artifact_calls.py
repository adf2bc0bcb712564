"""Artifacts of runs: lists, and files that are whole and verified once they have their name.

A download is written beside its target and goes on where it stopped, within one call and in the next one.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from towline.v1.artifact_pb2 import Artifact
from towline.v1.run_service_pb2 import (
    DownloadArtifactRequest,
    DownloadArtifactResponse,
    ListArtifactsRequest,
    ListArtifactsResponse,
)
from towline_sdk.errors import ServerError, UnavailableError
from towline_sdk.transport import STREAM_TRIES, Transport, backoff_seconds

PART_SUFFIX: Final = ".part"


@dataclass(frozen=True, slots=True)
class ArtifactCalls:
    """Files that attempts made; `attempt` 0 means the newest one of a step."""

    _transport: Transport

    async def list(self, run_id: str, node_id: str = "", attempt: int = 0) -> ListArtifactsResponse:
        """Returns all artifacts of a run, or of one of its steps."""
        whole = ListArtifactsResponse()
        request = ListArtifactsRequest(run_id=run_id, node_id=node_id, attempt=attempt)
        while True:
            page = await self._transport.call(request, ListArtifactsResponse)
            whole.artifacts.extend(page.artifacts)
            if not page.next_page_token:
                return whole
            request.page_token = page.next_page_token

    async def read(
        self, run_id: str, node_id: str, name: str, attempt: int = 0, offset: int = 0
    ) -> AsyncIterator[DownloadArtifactResponse]:
        """Yields what an artifact is, then its bytes from `offset` on; ends with an error if the connection does."""
        request = DownloadArtifactRequest(run_id=run_id, node_id=node_id, name=name, attempt=attempt, offset=offset)
        async for answer in self._transport.stream(request, DownloadArtifactResponse):
            yield answer

    async def download(self, run_id: str, node_id: str, name: str, target: Path, attempt: int = 0) -> Artifact:
        """Puts an artifact under `target` once all its bytes are there and have its digest; returns what it is."""
        part = target.with_name(target.name + PART_SUFFIX)
        began_anew = not part.exists()
        failures = 0
        while True:
            try:
                artifact = await self._fetch_rest(part, run_id, node_id, name, attempt)
            except UnavailableError:
                failures += 1
                if failures >= STREAM_TRIES:
                    raise
                await asyncio.sleep(backoff_seconds(failures - 1))
                continue
            if await asyncio.to_thread(_digest_of, part) == artifact.digest:
                part.replace(target)
                return artifact
            part.unlink()
            if began_anew:
                raise ServerError(f"the bytes of {name} do not have the digest {artifact.digest}")
            began_anew = True  # what was there before was of another file

    async def _fetch_rest(self, part: Path, run_id: str, node_id: str, name: str, attempt: int) -> Artifact:
        artifact = Artifact()
        with part.open("ab") as file:
            async for answer in self.read(run_id, node_id, name, attempt, file.tell()):
                if answer.HasField("artifact"):
                    artifact = answer.artifact
                file.write(answer.chunk)
        return artifact


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
