"""The plugin cache: fetched once, resumed, verified."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from running_agent import run, running
from test_archive import bundle, file

from towline.v1.run_pb2 import Failure
from towline_agent.bundles import Bundles, BundleUnavailable
from towline_agent.control_plane import ControlPlaneError, CredentialRefused, Unavailable
from towline_agent.testing import FakeClock, FakeControlPlane, FakeTimer, make_offer

GOOD = bundle(file("plugin.toml", b"name = 'x'" * 1000), file("run", b"#!/bin/sh", 0o755))


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DIGEST = digest_of(GOOD)


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
        bundles = Bundles(tmp_path, fake, FakeClock())
        folders = await asyncio.gather(*(bundles.get(DIGEST) for _ in range(5)))
        assert set(folders) == {tmp_path / DIGEST}
        assert (folders[0] / "run").read_bytes() == b"#!/bin/sh"
        assert fake.fetches == [(DIGEST, 0)]
        again = Bundles(tmp_path, fake, FakeClock())
        assert await again.get(DIGEST) == folders[0]
        assert len(fake.fetches) == 1

    run(scenario)


def test_one_that_waits_may_leave_without_taking_the_bundle_along(tmp_path: Path) -> None:
    async def scenario() -> None:
        bundles = Bundles(tmp_path, FakeControlPlane(plugins={DIGEST: GOOD}), FakeClock())
        leaver, stayer = asyncio.create_task(bundles.get(DIGEST)), asyncio.create_task(bundles.get(DIGEST))
        await asyncio.sleep(0)
        leaver.cancel()
        assert (await stayer).is_dir()
        assert leaver.cancelled()

    run(scenario)


def test_a_broken_fetch_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD}, break_fetch_after=deque([50, 30]))
        await Bundles(tmp_path, fake, PatientClock()).get(DIGEST)
        assert fake.fetches == [(DIGEST, 0), (DIGEST, 50), (DIGEST, 80)]

    run(scenario)


def test_what_a_crash_left_half_done_is_made_again(tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST}.part").write_bytes(b"rubbish")
    for half in (tmp_path / DIGEST, tmp_path / f"{DIGEST}.draft"):
        half.mkdir()
        (half / "run").write_bytes(b"half")

    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD})
        folder = await Bundles(tmp_path, fake, FakeClock()).get(DIGEST)
        assert (folder / "run").read_bytes() == b"#!/bin/sh"
        assert names(tmp_path) == [DIGEST, f"{DIGEST}.unpacked"]

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
        with pytest.raises(BundleUnavailable) as caught:
            await Bundles(tmp_path, FakeControlPlane(plugins=plugins), FakeClock()).get(digest)
        failure = caught.value.failure
        assert (getattr(failure, "class"), failure.code) == (kind, "BUNDLE_UNAVAILABLE")
        assert cause in failure.cause
        assert names(tmp_path) == []

    run(scenario)


@pytest.mark.parametrize("error", [Unavailable("away"), CredentialRefused("revoked")])
def test_a_network_that_stays_away_is_worth_another_try(tmp_path: Path, error: ControlPlaneError) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(plugins={DIGEST: GOOD})
        fake.errors["fetch_plugin"] = deque([error] * 10)
        with pytest.raises(BundleUnavailable) as caught:
            await Bundles(tmp_path, fake, PatientClock()).get(DIGEST)
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
