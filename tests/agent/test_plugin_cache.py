"""Room for the files of plugins: bounded, least recently used first, never from under an attempt."""

import asyncio
from pathlib import Path

from test_archive import bundle, file
from test_bundles import digest_of

from towline_agent.plugin_files import PluginShelf
from towline_agent.testing import FakeClock, FakeControlPlane

BUNDLES = {
    digest_of(data): data
    for number in range(4)
    for data in [bundle(file("plugin.toml", b"#"), file("noise", number.to_bytes(1, "big") * 2_000))]
}
A, B, C, D = BUNDLES


def kept(state_dir: Path) -> set[str]:
    return {path.name for path in (state_dir / "plugins").iterdir() if path.is_dir()}


async def use(shelf: PluginShelf, clock: FakeClock, *digests: str) -> None:
    for digest in digests:
        clock.now += 1
        await shelf.take(digest, digest)
        shelf.give_back(digest)


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        shelf = PluginShelf(tmp_path, FakeControlPlane(plugins=BUNDLES), clock, max_bytes=14_000)
        await use(shelf, clock, A, B, A, C)
        assert kept(tmp_path) == {A, C}
        assert list((tmp_path / "removed").iterdir()) == []

    asyncio.run(scenario())


def test_what_is_in_use_stays_whatever_it_takes(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        shelf = PluginShelf(tmp_path, FakeControlPlane(plugins=BUNDLES), clock, max_bytes=1)
        await shelf.take("first", A)
        await shelf.take("second", A)
        shelf.give_back("first")
        await shelf.take("third", B)
        assert kept(tmp_path) == {A, B}
        shelf.give_back("second")
        await shelf.take("fourth", B)
        assert kept(tmp_path) == {B}

    asyncio.run(scenario())


def test_what_was_removed_is_fetched_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, fake = FakeClock(), FakeControlPlane(plugins=BUNDLES)
        shelf = PluginShelf(tmp_path, fake, clock, max_bytes=3_000)
        await use(shelf, clock, A, B, A)
        assert [digest for digest, _ in fake.fetches] == [A, B, A]
        assert ((await shelf.take("x", A)).bundle or tmp_path).joinpath("noise").stat().st_size == 2_000

    asyncio.run(scenario())


def test_a_later_process_counts_what_it_finds(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, fake = FakeClock(), FakeControlPlane(plugins=BUNDLES)
        await use(PluginShelf(tmp_path, fake, clock, 1 << 30), clock, A, B, C, D)
        await use(PluginShelf(tmp_path, fake, clock, max_bytes=1), clock, D)
        assert kept(tmp_path) == {D}
        assert sorted(path.name for path in (tmp_path / "plugins").iterdir()) == [D, f"{D}.tar.gz"]

    asyncio.run(scenario())
