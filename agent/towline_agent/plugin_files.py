"""What a plugin needs on the disk of this host: its bundle, and its environment if it has a lock.

Held while an attempt uses it, so that the bounded cache leaves it alone.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from towline.v1.run_pb2 import Failure
from towline_agent.bundles import Bundles, BundleSource, PluginUnavailable
from towline_agent.clock import Clock
from towline_agent.environments import Environments, Packages, packages_of
from towline_agent.outcomes import bundle_unavailable
from towline_agent.plugin_cache import PluginCache
from towline_sdk.errors import InvalidBundleError
from towline_sdk.lock import parse_lock
from towline_sdk.manifest import ENVIRONMENT, MANIFEST_NAME, Environment

_REMEMBERED: Final = 1_000


@dataclass(frozen=True, slots=True)
class PluginFiles:
    """Where a plugin lies. Neither folder is ever written to."""

    bundle: Path | None
    """None for a built-in."""
    packages: Path | None = None
    """Its virtual environment."""


class PluginShelf:
    """Bundles and environments in one bounded cache."""

    def __init__(
        self, state_dir: Path, source: BundleSource, clock: Clock, max_bytes: int, *, shared: bool = False
    ) -> None:
        """`shared`: plugins run as other users, who may then pass through the folders."""
        self._clock = clock
        self._cache = PluginCache(max_bytes, state_dir / "removed")
        self._bundles = Bundles(state_dir / "plugins", source, self._cache, clock, shared=shared)
        self._environments = Environments(state_dir / "environments", self._cache, clock, shared=shared)
        self._packages: dict[str, Packages | None] = {}
        self._held: dict[str, list[str]] = {}

    async def take(self, key: str, digest: str) -> PluginFiles:
        """Provides the files of a plugin and holds them for the attempt `key`; raises PluginUnavailable.

        The hold begins before there is anything to hold, so that nothing is taken away in between.
        """
        self._hold(key, digest)
        bundle = await self._bundles.get(digest)
        packages = self._packages_of(digest, bundle)
        if packages is None:
            await self._cache.shrink()
            return PluginFiles(bundle)
        self._hold(key, packages.key)
        environment = await self._environments.get(packages)
        await self._cache.shrink()
        return PluginFiles(bundle, environment)

    def give_back(self, key: str) -> None:
        """Ends the hold of an attempt."""
        for name in self._held.pop(key, ()):
            self._cache.release(name, self._clock.monotonic())

    async def close(self) -> None:
        """Ends what is under way."""
        await self._bundles.close()
        await self._environments.close()

    def _hold(self, key: str, name: str) -> None:
        self._cache.hold(name)
        self._held.setdefault(key, []).append(name)

    def _packages_of(self, digest: str, bundle: Path) -> Packages | None:
        if digest not in self._packages:
            if len(self._packages) >= _REMEMBERED:
                self._packages.clear()
            self._packages[digest] = read_packages(bundle)
        return self._packages[digest]


def read_packages(bundle: Path) -> Packages | None:
    """Returns what the manifest of an unpacked bundle says of its packages; raises PluginUnavailable.

    Reads nothing else of it: the control plane has judged the manifest, and may know fields that this agent does not.
    """
    try:
        said: object = tomllib.loads((bundle / MANIFEST_NAME).read_text()).get("environment")
        if said is None:
            return None
        environment = _environment(said)
        requirements = parse_lock((bundle / environment.lock).read_bytes())
    except (OSError, ValueError, InvalidBundleError) as error:
        wrong = [f"{each.field} {each.message}" for each in getattr(error, "violations", ())]
        reason = "; ".join(wrong) or str(error)
        raise PluginUnavailable(bundle_unavailable(Failure.PERMANENT, reason)) from error
    return packages_of(requirements, None if environment.wheels is None else bundle / environment.wheels)


def _environment(said: object) -> Environment:
    table = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    if not all(rule.holds(table[name]) for name, rule in ENVIRONMENT.items() if name in table) or "lock" not in table:
        raise ValueError(f"[environment] of {MANIFEST_NAME} names no lock inside the bundle")
    return Environment(table["lock"], table.get("wheels"))
