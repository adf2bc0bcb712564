"""The packages of plugins: one virtual environment per lock, built once by this host's pip from wheels alone.

Nothing of a package is executed while it is installed, and every file's hash is in the lock. Where packages come from
is in pip's own configuration on this host, or in the bundle itself, which then needs no network. An environment has a
name of its own from its first byte, and counts once its record is there, written last: what a crash leaves is not used.
"""

import asyncio
import hashlib
import json
import os
import secrets
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from towline_agent.bundles import PluginUnavailable
from towline_agent.clock import Clock
from towline_agent.files import private_folder, reachable_folder, remove_tree, write_private
from towline_agent.outcomes import environment_unavailable
from towline_agent.pip import PipFailed, install
from towline_agent.plugin_cache import PluginCache
from towline_agent.tree_seal import Seal

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

MAX_BYTES: Final = 4 << 30
_RECORD: Final = ".json"


@dataclass(frozen=True, slots=True)
class Packages:
    """What an environment is made of."""

    key: str
    """Equal for equal environments: what the lock says, for the interpreter of this agent."""
    requirements: Sequence[str]
    wheels: Path | None
    """The folder of wheels that the bundle brings along; None: pip's index."""


def packages_of(requirements: Sequence[str], wheels: Path | None) -> Packages:
    """Returns the packages that a lock asks for."""
    interpreter = (sys.version, sysconfig.get_platform(), getattr(sys, "_base_executable", sys.executable))
    text = json.dumps([*interpreter, *requirements])
    return Packages(hashlib.sha256(text.encode()).hexdigest()[:32], requirements, wheels)


@dataclass(slots=True)
class _Environment:
    folder: Path
    seal: Seal


class Environments:
    """The folder of environments and their records, and the builds under way."""

    def __init__(self, folder: Path, cache: PluginCache, clock: Clock, *, shared: bool = False) -> None:
        self._folder = reachable_folder(folder) if shared else private_folder(folder)
        self._cache = cache
        self._clock = clock
        self._known: dict[str, _Environment] = {}
        self._builds: dict[str, asyncio.Task[_Environment]] = {}
        for record in sorted(self._folder.glob(f"*{_RECORD}")):
            self._read(record)
        recorded = {known.folder for known in self._known.values()}
        for path in self._folder.iterdir():
            if path.is_dir() and path not in recorded:
                remove_tree(path)

    async def get(self, packages: Packages) -> Path:
        """Returns the folder of the environment, which is built if it is not there; raises PluginUnavailable."""
        key = packages.key
        known = self._known.get(key)
        if known is not None and await self._is_intact(known):
            return known.folder
        build = self._builds.get(key)
        if build is None:
            build = self._builds[key] = asyncio.create_task(self._build(key, packages))
            build.add_done_callback(partial(self._built, key))
        # One attempt that is cancelled must not take the environment from the others.
        return (await asyncio.shield(build)).folder

    async def close(self) -> None:
        """Ends the builds under way."""
        builds = list(self._builds.values())
        for build in builds:
            build.cancel()
        await asyncio.gather(*builds, return_exceptions=True)

    def _read(self, record: Path) -> None:
        """Takes over what an earlier process built; a record that cannot be read, or of what is gone, is removed."""
        try:
            document = json.loads(record.read_bytes())
            found = _Environment(self._folder / document["folder"], Seal.from_json(document["seal"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            found = None
        if found is None or not found.folder.is_dir():
            record.unlink()
        else:
            self._keep(record.name.removesuffix(_RECORD), found)

    def _keep(self, key: str, found: _Environment) -> None:
        self._known[key] = found
        self._cache.put(key, found.seal.bytes, self._clock.monotonic(), (self._record(key), found.folder))

    def _record(self, key: str) -> Path:
        return self._folder / f"{key}{_RECORD}"

    async def _is_intact(self, known: _Environment) -> bool:
        changed = await asyncio.to_thread(known.seal.difference)
        if changed is not None:
            log.warning("environment_was_changed", folder=known.folder.name, path=changed)
        return changed is None

    def _built(self, key: str, build: asyncio.Task[_Environment]) -> None:
        del self._builds[key]
        if not build.cancelled():
            build.exception()  # nobody may be left to hear it

    async def _build(self, key: str, packages: Packages) -> _Environment:
        started = self._clock.monotonic()
        folder = self._folder / f"{key}-{secrets.token_hex(4)}"
        log.info("environment_building", folder=folder.name, packages=len(packages.requirements))
        try:
            await asyncio.to_thread(_make, folder)
            await install(packages.requirements, packages.wheels, folder, MAX_BYTES)
            built = await asyncio.to_thread(_sealed, folder)
        except BaseException as error:
            remove_tree(folder)
            if isinstance(error, PipFailed):
                raise PluginUnavailable(environment_unavailable(error.kind, str(error))) from error
            raise
        write_private(self._record(key), json.dumps({"folder": folder.name, "seal": built.seal.to_json()}).encode())
        self._keep(key, built)
        log.info("environment_built", folder=folder.name, seconds=round(self._clock.monotonic() - started, 3))
        return built


def _make(folder: Path) -> None:
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)


def _sealed(folder: Path) -> _Environment:
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            each = Path(path, name)
            if not each.is_symlink():
                each.chmod(0o555 if each.is_dir() or each.stat().st_mode & 0o100 else 0o444)
    folder.chmod(0o555)
    return _Environment(folder, Seal.of(folder))
