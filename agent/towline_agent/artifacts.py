"""What attempts leave behind on their way to the control plane: taken out of the folder, kept, sent, forgotten.

`collect` runs while the attempt has its slot, `deliver` after that; a result is reported once its artifacts are stored,
so that they are there with it. An attempt that failed keeps what it made as well, for whoever looks into it; but only a
success fails for the want of its artifacts.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from towline.v1.agent_service_pb2 import AttemptResult, Lease, ResultArtifact
from towline.v1.run_pb2 import Evidence, Failure
from towline_agent import artifact_folder
from towline_agent.artifact_folder import Findings, Kept, TooMuch
from towline_agent.artifact_spool import ArtifactSpool
from towline_agent.clock import Backoff, Clock
from towline_agent.control_plane import ControlPlane, ControlPlaneError, LeaseLost, RequestRefused
from towline_agent.outcomes import PERMANENT, TRANSIENT, without_artifacts
from towline_agent.session import Session

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

CHUNK_BYTES: Final = 256 * 1024
STREAMS: Final = 4
"""Artifacts that are sent at the same time."""
_COLLECTED: Final = frozenset({AttemptResult.SUCCEEDED, AttemptResult.FAILED, AttemptResult.TIMED_OUT})

_NOT_KEPT: Final = "The artifacts could not be kept"

Note = Callable[[str], object]
T = TypeVar("T")


class Artifacts:
    """The artifacts of all attempts of this agent, by the key of the attempt."""

    def __init__(self, spool: ArtifactSpool, control_plane: ControlPlane, session: Session, clock: Clock) -> None:
        self._spool = spool
        self._control_plane = control_plane
        self._session = session
        self._clock = clock
        self._streams = asyncio.Semaphore(STREAMS)
        self._kept: dict[str, list[Kept]] = {}
        self._deliveries: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def collect(self, key: str, folder: Path, max_bytes: int, result: AttemptResult, note: Note) -> None:
        """Keeps copies of the artifacts and names them in the result; too many or too large ones make it a failure.

        `note` tells the readers of the attempt's log what was left.
        """
        if result.outcome not in _COLLECTED or artifact_folder.is_empty(folder):
            return
        try:
            findings = await _in_thread(partial(artifact_folder.look, folder, max_bytes))
            kept = await self._keep(key, folder, findings, note)
        except TooMuch as error:
            _fail(result, PERMANENT, "ARTIFACT_LIMIT", "The artifacts are more than is allowed", str(error), note)
            return
        except asyncio.CancelledError:
            self.forget(key)
            raise
        except Exception as error:  # whatever it is, it is the affair of this attempt alone
            log.warning("artifacts_not_kept", exc_info=error)
            self.forget(key)
            _fail(result, TRANSIENT, "ARTIFACT_UNAVAILABLE", _NOT_KEPT, str(error), note)
            return
        for text in findings.left:
            note(text)
        if kept:
            self._kept[key] = kept
            result.artifacts.extend(ResultArtifact(name=k.name, size_bytes=k.size, digest=k.digest) for k in kept)
        else:
            self.forget(key)

    async def deliver(self, key: str, result: AttemptResult) -> None:
        """Returns once all is stored, or never will be: then the result is a failure, or its lease is lost."""
        kept = self._kept.get(key)
        if kept is None:
            return
        # By the names in the result, in which secrets are masked.
        files = tuple(zip(result.artifacts, (each.file for each in kept), strict=True))
        sending = self._deliveries[key] = asyncio.create_task(self._send_all(result.lease, files))
        try:
            await asyncio.wait([sending])
        finally:
            sending.cancel()
            del self._deliveries[key]
            self.forget(key)
        if sending.cancelled():  # it was forgotten meanwhile
            return
        try:
            sending.result()
        except RequestRefused as error:
            result.ClearField("artifacts")
            _fail(result, PERMANENT, "ARTIFACT_REFUSED", "The control plane does not take the artifacts", str(error))
        except LeaseLost as error:
            log.warning("artifacts_discarded", run=result.lease.run_id, node=result.lease.node_id, reason=str(error))
        except OSError as error:
            result.ClearField("artifacts")
            _fail(result, TRANSIENT, "ARTIFACT_UNAVAILABLE", _NOT_KEPT, str(error))

    def forget(self, key: str) -> None:
        """Stops sending the artifacts of an attempt, and removes them."""
        sending = self._deliveries.get(key)
        if sending is not None:
            sending.cancel()
        self._kept.pop(key, None)
        try:
            self._spool.give_back(key)
        except OSError as error:
            log.warning("artifacts_left_on_disk", reason=str(error))

    async def _keep(self, key: str, folder: Path, findings: Findings, note: Note) -> list[Kept]:
        if not findings.sizes:
            return []
        waiting = partial(note, "artifacts wait: too many others are on their way to the control plane")
        room = await self._spool.take_room(key, findings.bytes, waiting)
        return await _in_thread(partial(artifact_folder.take, folder, findings, room))

    async def _send_all(self, lease: Lease, files: Sequence[tuple[ResultArtifact, Path]]) -> None:
        for artifact, file in files:
            async with self._streams:
                await self._send(lease, artifact, file)

    async def _send(self, lease: Lease, artifact: ResultArtifact, file: Path) -> None:
        backoff, offset = Backoff(self._clock.jitter), 0
        while True:
            await self._session.opened()
            try:
                answer = await self._control_plane.put_artifact(lease, artifact, offset, _chunks(file, offset))
            except (RequestRefused, LeaseLost):
                raise
            except ControlPlaneError as error:
                log.warning("artifact_not_sent", run=lease.run_id, node=lease.node_id, reason=str(error))
                await self._session.recover(error, backoff)
                continue
            if answer.complete:
                return
            if answer.next_offset <= offset:  # not a step further: whatever the reason, do not insist
                await self._session.pause(backoff.next())
            offset = max(0, min(answer.next_offset, artifact.size_bytes))


def _chunks(file: Path, offset: int) -> Iterator[bytes]:
    with file.open("rb") as source:
        source.seek(offset)
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def _fail(
    result: AttemptResult, kind: Failure.Class, code: str, message: str, cause: str, note: Note = lambda text: None
) -> None:
    if result.outcome != AttemptResult.SUCCEEDED:
        note(f"{message}: {cause}")
        return
    result.outcome = AttemptResult.FAILED
    result.ClearField("output_json")
    result.failure.CopyFrom(without_artifacts(kind, code, message, cause))
    result.evidence.cause = Evidence.ARTIFACTS


async def _in_thread(work: Callable[[], T]) -> T:
    """Runs `work` to its end, whatever becomes of the caller: nobody may remove what a thread still works on."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise
