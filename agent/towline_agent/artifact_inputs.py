"""Artifacts of predecessors, in a folder of their own before a step starts that wants them: read-only, verified copies.

They come through a cache by digest, which attempts never see: what a plugin does to its copies stays its own affair. A
fetch that breaks goes on where it stopped. The cache is bounded; what was used last stays.
"""

import asyncio
import hashlib
import re
from collections import defaultdict
from pathlib import Path
from typing import Final

import structlog

from towline.v1.agent_service_pb2 import InputArtifact, Lease, Offer
from towline.v1.run_pb2 import Failure
from towline_agent.artifact_names import problem_of
from towline_agent.clock import Backoff, Clock, Signal
from towline_agent.control_plane import ControlPlane, ControlPlaneError, RequestRefused, Unavailable
from towline_agent.files import private_folder
from towline_agent.outcomes import PERMANENT, TRANSIENT, without_artifacts

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

MAX_INPUT_BYTES: Final = 8 << 30
"""Of one attempt."""
FETCH_TRIES: Final = 4
_CHUNK_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NODE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,160}")


class InputUnavailable(Exception):
    """An artifact cannot be had; `failure` says why and whether another try may help."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ArtifactInputs:
    """The cache folder, and who fetches into it."""

    def __init__(self, folder: Path, control_plane: ControlPlane, clock: Clock, max_bytes: int) -> None:
        self._folder = private_folder(folder)
        self._control_plane = control_plane
        self._clock = clock
        self._max_bytes = max_bytes
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def provide(self, offer: Offer, into: Path) -> None:
        """Puts each input of an offer at `<node>/<name>` in the new folder `into`; raises InputUnavailable, OSError."""
        wanted = offer.input_artifacts.artifacts
        if sum(each.size_bytes for each in wanted) > MAX_INPUT_BYTES:
            raise _unavailable(PERMANENT, f"they have more than {MAX_INPUT_BYTES:,} bytes together")
        await asyncio.to_thread(into.mkdir, mode=0o755)
        for each in wanted:
            if problem_of(each.name) or not _NODE.fullmatch(each.node_id) or not _DIGEST.fullmatch(each.digest):
                raise _unavailable(PERMANENT, f"{each.node_id[:100]}/{each.name[:100]!r} is not the name of one")
            await self._bring(offer.lease, each, into / each.node_id / each.name)
        await asyncio.to_thread(_make_read_only, into)
        await self._evict()

    async def _bring(self, lease: Lease, artifact: InputArtifact, target: Path) -> None:
        async with self._locks[artifact.digest]:  # whoever comes second finds it in the cache
            cached = self._folder / artifact.digest
            for _ in range(2):
                if not cached.exists():
                    await self._fetch(lease, artifact, cached)
                if await asyncio.to_thread(_copy_verified, cached, target, artifact):
                    return
                log.warning("cached_artifact_damaged", digest=artifact.digest)
                cached.unlink()
        raise _unavailable(TRANSIENT, f"the bytes of {artifact.node_id}/{artifact.name} do not have its digest")

    async def _fetch(self, lease: Lease, artifact: InputArtifact, cached: Path) -> None:
        part, backoff = cached.with_suffix(".part"), Backoff(self._clock.jitter)
        while True:
            try:
                await self._fetch_rest(lease, artifact, part)
                break
            except Unavailable as error:
                delay = backoff.next()
                if backoff.failures == FETCH_TRIES:
                    raise _unavailable(TRANSIENT, str(error)) from error
                log.warning("artifact_fetch_failed", digest=artifact.digest, reason=str(error))
                await Signal(self._clock).wait(delay)
            except ControlPlaneError as error:
                raise _unavailable(TRANSIENT, str(error)) from error
        part.rename(cached)

    async def _fetch_rest(self, lease: Lease, artifact: InputArtifact, part: Path) -> None:
        with part.open("ab") as file:
            if file.tell() > artifact.size_bytes:
                file.truncate(0)
            async for chunk in self._control_plane.get_artifact(lease, artifact, file.tell()):
                if file.tell() + len(chunk) > artifact.size_bytes:
                    raise RequestRefused(f"it is larger than the {artifact.size_bytes} bytes that were promised")
                file.write(chunk)

    async def _evict(self) -> None:
        sizes = await asyncio.to_thread(_sizes_by_age, self._folder)
        too_much = sum(sizes.values()) - self._max_bytes
        for file, size in sizes.items():
            if too_much <= 0:
                return
            if not self._locks[file.stem].locked():
                too_much -= size
                file.unlink(missing_ok=True)
                del self._locks[file.stem]


def _copy_verified(cached: Path, target: Path, artifact: InputArtifact) -> bool:
    """Copies; tells whether the bytes are those of the artifact, and leaves nothing otherwise."""
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    hashed = hashlib.sha256()
    with cached.open("rb") as source, target.open("xb") as sink:
        while chunk := source.read(_CHUNK_BYTES):
            hashed.update(chunk)
            sink.write(chunk)
    if hashed.hexdigest() != artifact.digest:
        target.unlink()
        return False
    cached.touch()
    return True


def _sizes_by_age(folder: Path) -> dict[Path, int]:
    found = {file: file.stat() for file in folder.iterdir()}
    return {file: found[file].st_size for file in sorted(found, key=lambda file: found[file].st_mtime_ns)}


def _make_read_only(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)


def _unavailable(kind: Failure.Class, cause: str) -> InputUnavailable:
    code = "ARTIFACT_UNAVAILABLE" if kind == TRANSIENT else "ARTIFACT_LIMIT"
    return InputUnavailable(without_artifacts(kind, code, "Artifacts of the predecessors cannot be had", cause))
