"""Takes artifacts from the holders of attempts: a name, a size and a digest first, then bytes that must have both.

Only the current lease may put (I2), within the bounds of its attempt (I31). An artifact is recorded once its bytes are
in the blob store, verified, and stays invisible until the attempt's result is accepted. Bytes that the owner of the run
has stored before are not asked for again; bytes of others are, so that knowing a digest gives nobody what it names.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from towline_controlplane.artifact_names import content_type_of, problem_of
from towline_controlplane.artifact_records import NamedArtifact
from towline_controlplane.blobs import DIGEST, Blobs
from towline_controlplane.engine.lease import Standing, standing
from towline_controlplane.errors import InvalidArgument, LeaseLost, LimitExceeded, Violation
from towline_controlplane.model import Lease
from towline_controlplane.store import artifacts, released_blobs, runs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.upload_spool import Upload, UploadSpool

MAX_ARTIFACTS: Final = 1_000
MAX_CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upload is: stored, or wanted from an offset on."""

    complete: bool
    next_offset: int = 0


@dataclass(slots=True)
class ArtifactUploads:
    """Uploads through this control plane; `max_bytes` bounds the artifacts of one attempt together."""

    database: Database
    blobs: Blobs
    folder: Path
    max_bytes: int
    _spool: UploadSpool = field(init=False)

    def __post_init__(self) -> None:
        self._spool = UploadSpool(self.folder)

    async def put(self, lease: Lease, artifact: NamedArtifact, offset: int, chunks: AsyncIterator[bytes]) -> Progress:
        """Takes bytes from `offset` on; answers without them if they are not what is wanted.

        Raises LeaseLost, InvalidArgument (also for bytes that have another digest), LimitExceeded or Unavailable.
        """
        _check(artifact, self.max_bytes)
        if await self._is_known(lease, artifact):
            return Progress(complete=True)
        upload = await self._spool.resume(lease, artifact.digest)
        if upload.size > artifact.size_bytes:
            await self._spool.remove(upload)
            return Progress(complete=False)
        if offset != upload.size:
            return Progress(complete=False, next_offset=upload.size)
        await _receive(upload, artifact, chunks)
        if upload.size < artifact.size_bytes:
            return Progress(complete=False, next_offset=upload.size)
        await self._store(lease, artifact, upload)
        return Progress(complete=True)

    async def tick(self) -> None:
        """Removes uploads that nobody goes on with."""
        await self._spool.sweep()

    async def _is_known(self, lease: Lease, artifact: NamedArtifact) -> bool:
        """Admits an upload; tells whether its bytes are not needed, and records the artifact then."""
        spooled = await self._spool.bytes_of(lease, artifact.digest)
        is_there = await self.blobs.exists(artifact.digest)

        def admit(tx: Transaction) -> bool:
            _check_lease(tx, lease)
            put = artifacts.put_under(tx, lease)
            if put.pop(artifact.name, None) == artifact and is_there:
                return True
            _check_room(put, artifact, spooled, self.max_bytes)
            released_blobs.note_use(tx, [artifact.digest])
            if is_there and artifacts.owner_has(tx, lease.run_id, artifact):
                _record(tx, lease, artifact)
                return True
            return False

        return await self.database.write(admit)

    async def _store(self, lease: Lease, artifact: NamedArtifact, upload: Upload) -> None:
        # The store does not look at the bytes of a blob that it has: to know a digest must not be enough.
        if await upload.digest() != artifact.digest:
            await self._spool.remove(upload)
            raise InvalidArgument.of("artifact.digest", "is not that of the bytes")
        await self.blobs.put_file(upload.path, artifact.digest)

        def record(tx: Transaction) -> None:
            _check_lease(tx, lease)
            _record(tx, lease, artifact)

        await self.database.write(record)
        await self._spool.remove(upload)


async def _receive(upload: Upload, artifact: NamedArtifact, chunks: AsyncIterator[bytes]) -> None:
    if artifact.size_bytes == 0:
        await upload.append(b"")
        return
    async for chunk in chunks:
        if len(chunk) > MAX_CHUNK_BYTES:
            raise InvalidArgument.of("chunk", f"at most {MAX_CHUNK_BYTES} bytes")
        if upload.size + len(chunk) > artifact.size_bytes:
            raise InvalidArgument.of("chunk", "goes beyond the size of the artifact")
        if chunk:
            await upload.append(chunk)
        if upload.size == artifact.size_bytes:
            return


def _check(artifact: NamedArtifact, max_bytes: int) -> None:
    wrong: list[Violation] = []
    if problem := problem_of(artifact.name):
        wrong.append(Violation("artifact.name", problem))
    if not DIGEST.fullmatch(artifact.digest):
        wrong.append(Violation("artifact.digest", "must be a SHA-256 in lower-case hex"))
    if artifact.size_bytes < 0:
        wrong.append(Violation("artifact.sizeBytes", "must not be negative"))
    if wrong:
        raise InvalidArgument(wrong)
    if artifact.size_bytes > max_bytes:
        raise LimitExceeded(f"the artifact is larger than the {max_bytes} bytes that an attempt may keep")


def _check_room(put: dict[str, NamedArtifact], artifact: NamedArtifact, spooled: int, max_bytes: int) -> None:
    if len(put) >= MAX_ARTIFACTS:
        raise LimitExceeded(f"the attempt has {MAX_ARTIFACTS} artifacts already")
    if sum(each.size_bytes for each in put.values()) + spooled + artifact.size_bytes > max_bytes:
        raise LimitExceeded(f"the artifacts of the attempt have more than {max_bytes} bytes together")


def _check_lease(tx: Transaction, lease: Lease) -> None:
    step = runs.get_step(tx, lease.run_id, lease.node_id)
    attempt = runs.get_attempt(tx, lease.run_id, lease.node_id, lease.attempt)
    if standing(step, attempt, lease) is not Standing.CURRENT:
        raise LeaseLost("the lease is stale: stop and discard")


def _record(tx: Transaction, lease: Lease, artifact: NamedArtifact) -> None:
    if not artifacts.put_if_unbound(tx, lease, artifact, content_type_of(artifact.name)):
        raise LeaseLost("the attempt has ended")
