"""Bundles by digest: fetched once, verified, unpacked by this process, and found unchanged before every use.

However many attempts wait for a bundle, it is fetched once; a fetch that breaks goes on where it stopped. What lies on
the disk is believed only as far as its digest: the archive is hashed and unpacked anew by each process of the agent,
and a tree that somebody has touched since is replaced.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from towline.v1.run_pb2 import Failure
from towline_agent.archive import BadBundle, unpack
from towline_agent.clock import Backoff, Clock, Signal
from towline_agent.control_plane import ControlPlaneError, RequestRefused, Unavailable
from towline_agent.files import private_folder, reachable_folder, remove_tree
from towline_agent.outcomes import bundle_unavailable
from towline_agent.plugin_cache import PluginCache
from towline_agent.tree_seal import Seal

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

MAX_BUNDLE_BYTES = 128 * 1024 * 1024
FETCH_TRIES = 4
LOOKED_AT_IN_PLACE = 256
"""Files that are looked at without leaving the event loop: less than 1 ms."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARCHIVE = ".tar.gz"


class PluginUnavailable(Exception):
    """The files of a plugin cannot be had; `failure` says why and whether another try may help."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class BundleSource(Protocol):
    """Where bundles come from."""

    def fetch_plugin(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Streams a bundle from an offset on."""
        ...


@dataclass(frozen=True, slots=True)
class _Tree:
    folder: Path
    seal: Seal


class Bundles:
    """The folder of archives and their trees, and the fetches under way."""

    def __init__(
        self, folder: Path, source: BundleSource, cache: PluginCache, clock: Clock, *, shared: bool = False
    ) -> None:
        self._folder = reachable_folder(folder) if shared else private_folder(folder)
        self._source = source
        self._cache = cache
        self._clock = clock
        self._trees: dict[str, _Tree] = {}
        self._fetches: dict[str, asyncio.Task[_Tree]] = {}
        for path in self._folder.iterdir():
            self._adopt(path)

    def _adopt(self, path: Path) -> None:
        """Only archives outlive a process: of a part nobody knows how much is on disk, of a tree who has touched it."""
        name = path.name.removesuffix(_ARCHIVE)
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        elif path.name == name or not _DIGEST.fullmatch(name):
            path.unlink()
        else:
            self._cache.put(name, path.stat().st_size, self._clock.monotonic(), (path,))

    async def get(self, digest: str) -> Path:
        """Returns the folder of the unpacked bundle, unchanged since it was verified; raises PluginUnavailable."""
        if not _DIGEST.fullmatch(digest):
            raise _permanent("its digest is not a SHA-256 in hex")
        tree = self._trees.get(digest)
        if tree is not None and await self._is_intact(digest, tree):
            return tree.folder
        fetch = self._fetches.get(digest)
        if fetch is None:
            fetch = self._fetches[digest] = asyncio.create_task(self._provide(digest))
            fetch.add_done_callback(partial(self._fetched, digest))
        # One attempt that is cancelled must not take the bundle from the others.
        return (await asyncio.shield(fetch)).folder

    async def close(self) -> None:
        """Ends the fetches under way."""
        fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    async def _is_intact(self, digest: str, tree: _Tree) -> bool:
        look = tree.seal.difference
        changed = look() if len(tree.seal) <= LOOKED_AT_IN_PLACE else await asyncio.to_thread(look)
        if changed is not None and tree.folder.exists():
            log.warning("bundle_was_changed", digest=digest, path=changed)
        return changed is None

    def _fetched(self, digest: str, fetch: asyncio.Task[_Tree]) -> None:
        del self._fetches[digest]
        if not fetch.cancelled():
            fetch.exception()  # nobody may be left to hear it

    async def _provide(self, digest: str) -> _Tree:
        archive, part = self._folder / f"{digest}{_ARCHIVE}", self._folder / f"{digest}.part"
        try:
            if not archive.exists() or await asyncio.to_thread(_digest_of, archive) != digest:
                await self._fetch(digest, part)
                await asyncio.to_thread(_keep, digest, part, archive)
            tree = self._trees[digest] = await asyncio.to_thread(self._unpack, archive, self._folder / digest)
        except (BadBundle, RequestRefused) as error:
            part.unlink(missing_ok=True)
            archive.unlink(missing_ok=True)
            raise _permanent(str(error)) from error
        except ControlPlaneError as error:
            raise PluginUnavailable(bundle_unavailable(Failure.TRANSIENT, str(error))) from error
        size = archive.stat().st_size + tree.seal.bytes
        self._cache.put(digest, size, self._clock.monotonic(), (archive, tree.folder))
        log.info("bundle_installed", digest=digest)
        return tree

    def _unpack(self, archive: Path, folder: Path) -> _Tree:
        draft = folder.with_suffix(".draft")
        remove_tree(draft)
        try:
            unpack(archive, draft)
        except BadBundle:
            remove_tree(draft)
            raise
        if folder.exists():  # what was changed may be in use, and goes from under it
            remove_tree(self._cache.discard(folder))
        draft.rename(folder)
        return _Tree(folder, Seal.of(folder))

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
            async for chunk in self._source.fetch_plugin(digest, file.tell()):
                if file.tell() + len(chunk) > MAX_BUNDLE_BYTES:
                    raise RequestRefused(f"it is larger than {MAX_BUNDLE_BYTES} bytes")
                file.write(chunk)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep(digest: str, part: Path, archive: Path) -> None:
    found = _digest_of(part)
    if found != digest:
        raise BadBundle(f"its bytes have the digest {found}")
    part.rename(archive)


def _permanent(reason: str) -> PluginUnavailable:
    return PluginUnavailable(bundle_unavailable(Failure.PERMANENT, reason))
