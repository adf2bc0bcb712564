"""Bundles: fetched once, resumed, verified at each process's first use and before every one."""

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from running_agent import run, running
from test_archive import bundle, file

from towline.v1.run_pb2 import Failure
from towline_agent.bundles import Bundles, PluginUnavailable
from towline_agent.control_plane import ControlPlaneError, CredentialRefused, Unavailable
from towline_agent.plugin_cache import PluginCache
from towline_agent.testing import FakeClock, FakeControlPlane, FakeTimer, make_offer

GOOD = bundle(file("plugin.toml", b"name = 'x'\n" + b"#" * 10_000), file("run", b"#!/bin/sh", 0o755))


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DIGEST = digest_of(GOOD)


def bundles_in(folder: Path, fake: FakeControlPlane, clock: FakeClock | None = None, room: int = 1 << 30) -> Bundles:
    return Bundles(folder / "plugins", fake, PluginCache(room, folder / "removed"), clock or FakeClock())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class PatientClock(FakeClock):
    """Timers are due at once: a test need not wait for a retry."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> FakeTimer:
        asyncio.get_running_loop().call_soon(callback)
        return super().call_later(seconds, lambda: None)


def test_a_bundle_is_fetched_once_however_many_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD}, chunk_bytes=100)
        bundles = bundles_in(tmp_path, fake)
        folders = await asyncio.gather(*(bundles.get(DIGEST) for _ in range(5)))
        assert set(folders) == {tmp_path / "plugins" / DIGEST}
        assert (folders[0] / "run").read_bytes() == b"#!/bin/sh"
        assert fake.fetches == [(DIGEST, 0)]
        again = bundles_in(tmp_path, fake)
        assert await again.get(DIGEST) == folders[0]
        assert len(fake.fetches) == 1

    run(scenario)


def test_one_that_waits_may_leave_without_taking_the_bundle_along(tmp_path: Path) -> None:
    async def scenario() -> None:
        bundles = bundles_in(tmp_path, FakeControlPlane(plugins={DIGEST: GOOD}))
        leaver, stayer = asyncio.create_task(bundles.get(DIGEST)), asyncio.create_task(bundles.get(DIGEST))
        await asyncio.sleep(0)
        leaver.cancel()
        assert (await stayer).is_dir()
        assert leaver.cancelled()

    run(scenario)


def test_a_broken_fetch_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD}, break_fetch_after=deque([50, 30]))
        await bundles_in(tmp_path, fake, PatientClock()).get(DIGEST)
        assert fake.fetches == [(DIGEST, 0), (DIGEST, 50), (DIGEST, 80)]

    run(scenario)


def test_what_a_crash_left_half_done_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / f"{DIGEST}.part").write_bytes(b"rubbish")
    (folder / f"{DIGEST}.tar.gz").write_bytes(GOOD[:-1])
    for half in (folder / DIGEST, folder / f"{DIGEST}.draft"):
        half.mkdir()
        (half / "run").write_bytes(b"half")

    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD})
        found = await bundles_in(tmp_path, fake).get(DIGEST)
        assert (found / "run").read_bytes() == b"#!/bin/sh"
        assert names(folder) == [DIGEST, f"{DIGEST}.tar.gz"]

    run(scenario)


def rewrite(folder: Path) -> None:
    (folder / "run").chmod(0o700)
    (folder / "run").write_bytes(b"#!/bin/ls")
    (folder / "run").chmod(0o555)
    os.utime(folder / "run", (1, 1))


def add(folder: Path) -> None:
    folder.chmod(0o700)
    (folder / "json.py").write_text("evil")


def swap(folder: Path) -> None:
    folder.chmod(0o700)
    (folder / "run").rename(folder / "walk")
    (folder / "run").write_bytes(b"#!/bin/ls")
    (folder / "walk").unlink()


@pytest.mark.parametrize("change", [rewrite, add, swap])
def test_a_tree_that_was_touched_is_replaced_before_it_is_used(change: Callable[[Path], None], tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD})
        bundles = bundles_in(tmp_path, fake)
        folder = await bundles.get(DIGEST)
        change(folder)
        assert await bundles.get(DIGEST) == folder
        assert names(folder) == ["plugin.toml", "run"]
        assert (folder / "run").read_bytes() == b"#!/bin/sh"
        assert len(fake.fetches) == 1

    run(scenario)


def test_a_later_process_believes_only_what_has_the_digest(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD})
        rewrite(await bundles_in(tmp_path, fake).get(DIGEST))
        folder = await bundles_in(tmp_path, fake).get(DIGEST)
        assert (folder / "run").read_bytes() == b"#!/bin/sh"
        assert len(fake.fetches) == 1
        (tmp_path / "plugins" / f"{DIGEST}.tar.gz").write_bytes(EVIL)
        assert (await bundles_in(tmp_path, fake).get(DIGEST) / "run").read_bytes() == b"#!/bin/sh"
        assert len(fake.fetches) == 2

    run(scenario)


EVIL = bundle(file("../evil"))
REFUSED: dict[str, tuple[str, dict[str, bytes], Failure.Class, str]] = {
    "unknown": ("0" * 64, {}, Failure.PERMANENT, "NOT_FOUND"),
    "not a digest": ("../../etc", {}, Failure.PERMANENT, "SHA-256"),
    "other bytes": (DIGEST, {DIGEST: GOOD + b"x"}, Failure.PERMANENT, "digest"),
    "attack": (digest_of(EVIL), {digest_of(EVIL): EVIL}, Failure.PERMANENT, "not a path inside"),
}


@pytest.mark.parametrize(("digest", "plugins", "kind", "cause"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path: Path, digest: str, plugins: dict[str, bytes], kind: Failure.Class, cause: str) -> None:
    async def scenario() -> None:
        with pytest.raises(PluginUnavailable) as caught:
            await bundles_in(tmp_path, FakeControlPlane(plugins=plugins)).get(digest)
        failure = caught.value.failure
        assert (getattr(failure, "class"), failure.code) == (kind, "BUNDLE_UNAVAILABLE")
        assert cause in failure.cause
        assert names(tmp_path / "plugins") == []

    run(scenario)


@pytest.mark.parametrize("error", [Unavailable("away"), CredentialRefused("revoked")])
def test_a_network_that_stays_away_is_worth_another_try(tmp_path: Path, error: ControlPlaneError) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD})
        fake.errors["fetch_plugin"] = deque([error] * 10)
        with pytest.raises(PluginUnavailable) as caught:
            await bundles_in(tmp_path, fake, PatientClock()).get(DIGEST)
        assert getattr(caught.value.failure, "class") == Failure.TRANSIENT

    run(scenario)


def test_an_attempt_gets_its_bundle_and_a_bad_bundle_fails_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD})
        async with running(tmp_path, fake=fake) as world:
            fake.offer(make_offer("good", digest=DIGEST), make_offer("bad", digest="0" * 64))
            await fake.until(lambda: len(fake.results) == 2)
            [launch] = world.supervisor.launches
            assert launch.plugin_dir == tmp_path / "plugins" / DIGEST
            assert launch.environment["TOWLINE_PLUGIN_DIR"] == str(launch.plugin_dir)
            assert fake.results["bad"].failure.code == "BUNDLE_UNAVAILABLE"

    run(scenario)
