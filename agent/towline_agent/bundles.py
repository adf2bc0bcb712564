"""The plugin cache: bundles by digest, fetched once, verified, unpacked and never written to again.

However many attempts wait for a bundle, it is fetched once. A fetch that breaks goes on where it stopped. Only a folder
with its marker, written last, is used: what a crash left half done is unpacked again.
"""

import asyncio
import hashlib
import re
from functools import partial
from pathlib import Path

import structlog

from towline.v1.run_pb2 import Failure
from towline_agent.archive import BadBundle, unpack
from towline_agent.clock import Backoff, Clock, Signal
from towline_agent.control_plane import ControlPlane, ControlPlaneError, RequestRefused, Unavailable
from towline_agent.files import private_folder, reachable_folder, remove_tree, write_private
from towline_agent.outcomes import bundle_unavailable

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

MAX_BUNDLE_BYTES = 128 * 1024 * 1024
FETCH_TRIES = 4
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BundleUnavailable(Exception):
    """The bundle cannot be had; `failure` says why and whether another try may help."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Bundles:
    """The cache folder and the fetches under way."""

    def __init__(self, folder: Path, control_plane: ControlPlane, clock: Clock, *, shared: bool = False) -> None:
        self._folder = reachable_folder(folder) if shared else private_folder(folder)
        self._control_plane = control_plane
        self._clock = clock
        self._fetches: dict[str, asyncio.Task[Path]] = {}
        for part in self._folder.glob("*.part"):  # of a dead process: nobody knows how much of it is on disk
            part.unlink()

    async def get(self, digest: str) -> Path:
        """Returns the folder of the unpacked bundle; raises BundleUnavailable."""
        if not _DIGEST.fullmatch(digest):
            raise _permanent("its digest is not a SHA-256 in hex")
        folder = self._folder / digest
        if self._marker(digest).exists():
            return folder
        fetch = self._fetches.get(digest)
        if fetch is None:
            fetch = self._fetches[digest] = asyncio.create_task(self._provide(digest, folder))
            fetch.add_done_callback(partial(self._fetched, digest))
        # One attempt that is cancelled must not take the bundle from the others.
        return await asyncio.shield(fetch)

    async def close(self) -> None:
        """Ends the fetches under way."""
        fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    def _fetched(self, digest: str, fetch: asyncio.Task[Path]) -> None:
        del self._fetches[digest]
        if not fetch.cancelled():
            fetch.exception()  # nobody may be left to hear it

    async def _provide(self, digest: str, folder: Path) -> Path:
        part = self._folder / f"{digest}.part"
        try:
            await self._fetch(digest, part)
            await asyncio.to_thread(_install, digest, part, folder)
        except (BadBundle, RequestRefused) as error:
            part.unlink(missing_ok=True)
            raise _permanent(str(error)) from error
        except ControlPlaneError as error:
            raise BundleUnavailable(bundle_unavailable(Failure.TRANSIENT, str(error))) from error
        write_private(self._marker(digest), b"")
        log.info("bundle_installed", digest=digest)
        return folder

    async def _fetch(self, digest: str, part: Path) -> None:
        backoff = Backoff(self._clock.jitter)
        while True:
            try:
                return await self._fetch_rest(digest, part)
            except Unavailable as error:
                delay = backoff.next()
                if backoff.failures == FETCH_TRIES:
                    raise
                log.warning("bundle_fetch_failed", digest=digest, reason=str(error))
                await Signal(self._clock).wait(delay)

    async def _fetch_rest(self, digest: str, part: Path) -> None:
        with part.open("ab") as file:
            async for chunk in self._control_plane.fetch_plugin(digest, file.tell()):
                if file.tell() + len(chunk) > MAX_BUNDLE_BYTES:
                    raise RequestRefused(f"it is larger than {MAX_BUNDLE_BYTES} bytes")
                file.write(chunk)

    def _marker(self, digest: str) -> Path:
        return (
            self._folder / f"{digest}.unpacked"
        )  # another name than when other users could not read what was unpacked


def _install(digest: str, part: Path, folder: Path) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise BadBundle(f"its bytes have the digest {found}")
    draft = folder.with_suffix(".draft")
    for leftover in (draft, folder):
        remove_tree(leftover)
    try:
        unpack(part, draft)
    except BadBundle:
        remove_tree(draft)
        raise
    draft.rename(folder)
    part.unlink()


def _permanent(reason: str) -> BundleUnavailable:
    return BundleUnavailable(bundle_unavailable(Failure.PERMANENT, reason))
