"""Environments from a lock: built once, offline, from wheels whose hashes are known; nothing else is ever used."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from supervisor_scenario import Stage, play
from test_bundles import digest_of
from tiny_wheels import GREETING, bundle_with, lock_line, wheel, wheel_name

from towline.v1.run_pb2 import Failure
from towline_agent import environments
from towline_agent.bundles import PluginUnavailable
from towline_agent.execution import EndReason
from towline_agent.plugin_cache import PluginCache
from towline_agent.plugin_files import PluginFiles, PluginShelf
from towline_agent.testing import FakeClock, FakeControlPlane, make_offer
from towline_agent.workshop import Surroundings, Workshop

PLUGIN = """
import sys, greeting, importlib.metadata

def run():
    greeting.main()
    return {"version": importlib.metadata.version("greeting"), "prefix": sys.prefix, "file": greeting.__file__}
"""
SCRIPT = "#!/bin/sh\ngreet && python3 -c 'import greeting; print(greeting.__file__)'\n"
WHEELS = {wheel_name("greeting"): GREETING}
LOCK = lock_line("greeting", GREETING)
DATA = bundle_with(WHEELS, LOCK, {"plugin.py": PLUGIN, "run.sh": SCRIPT})
DIGEST = digest_of(DATA)
OTHER_BYTES = wheel("greeting", {"greeting.py": "def main(): ...\n"})


def shelf_in(folder: Path, *bundles: bytes, max_bytes: int = 1 << 30) -> PluginShelf:
    fake = FakeControlPlane(plugins={digest_of(data): data for data in bundles})
    return PluginShelf(folder, fake, FakeClock(), max_bytes)


def built(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "environments").iterdir())


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(100):
            await scenario()

    asyncio.run(bounded())


async def packages_of(shelf: PluginShelf, digest: str = DIGEST, key: str = "attempt") -> Path:
    files = await shelf.take(key, digest)
    assert files.packages is not None
    return files.packages


def test_python_and_programs_find_the_packages(tmp_path: Path) -> None:
    async def scenario(scene: Stage) -> None:
        shelf = shelf_in(tmp_path / "state", DATA)
        files = await shelf.take("attempt", DIGEST)
        environment = variables(tmp_path, shelf, files)
        settings = {"plugin_dir": files.bundle, "packages_dir": files.packages, "environment": environment}
        end, output = await scene.run(scene.launch("python:plugin:run", **settings))
        assert (end.reason, end.exit_code) == (EndReason.EXITED, 0), output.stderr
        assert output.stdout == "hello from a package\n"
        told = json.loads(end.result)
        assert (told["version"], told["prefix"]) == ("1.0", str(files.packages))
        assert told["file"].startswith(str(files.packages))
        end, output = await scene.run(scene.launch("run.sh", **settings))
        assert end.exit_code == 0, output.stderr
        assert output.stdout == f"hello from a package\n{told['file']}\n"

    play(tmp_path, scenario)


def variables(folder: Path, shelf: PluginShelf, files: PluginFiles) -> dict[str, str]:
    workshop = Workshop(folder / "work", shelf, None, Surroundings(search_path="/usr/local/bin:/usr/bin:/bin"))
    return workshop.variables(make_offer(), folder, files)


def test_what_the_agent_runs_on_is_behind_what_the_plugin_brings(tmp_path: Path) -> None:
    """A package that the agent has too is the plugin's own; the standard library stays what it is."""
    shadows = wheel(
        "towline_plugins", {"towline_plugins/__init__.py": "MINE = 1\n", "json.py": "raise ImportError('evil')\n"}
    )
    code = (
        "import json, towline_plugins\n\ndef run():\n    return {'mine': towline_plugins.MINE, 'json': json.dumps(1)}\n"
    )
    data = bundle_with(
        {wheel_name("towline_plugins"): shadows}, lock_line("towline_plugins", shadows), {"plugin.py": code}
    )

    async def scenario(scene: Stage) -> None:
        shelf = shelf_in(tmp_path / "state", data)
        files = await shelf.take("attempt", digest_of(data))
        settings = {"plugin_dir": files.bundle, "environment": variables(tmp_path, shelf, files)}
        end, output = await scene.run(scene.launch("python:plugin:run", **settings))
        assert json.loads(end.result) == {"mine": 1, "json": "1"}, output.stderr

    play(tmp_path, scenario, packages=("towline_plugins",))


def test_an_environment_is_built_once_for_all_that_wait_and_all_that_share_its_lock(tmp_path: Path) -> None:
    other = bundle_with(WHEELS, LOCK, {"plugin.py": "# a later version"})

    async def scenario() -> None:
        shelf = shelf_in(tmp_path, DATA, other)
        keys = [(DIGEST, "a"), (digest_of(other), "b"), (DIGEST, "c")]
        folders = await asyncio.gather(*(packages_of(shelf, digest, key) for digest, key in keys))
        assert len(set(folders)) == 1
        later = shelf_in(tmp_path, DATA)
        assert await packages_of(later) == folders[0]
        assert len(built(tmp_path)) == 2  # the environment and its record

    run(scenario)


def test_what_a_crash_or_anybody_left_is_not_used(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = await packages_of(shelf_in(tmp_path, DATA))
        [record] = (tmp_path / "environments").glob("*.json")
        module = next(first.rglob("greeting.py"))
        module.chmod(0o700)
        module.write_text("def main():\n    print('evil')\n")
        second = await packages_of(shelf_in(tmp_path, DATA))
        assert second != first
        assert next(second.rglob("greeting.py")).read_text() != "def main():\n    print('evil')\n"
        record.unlink()
        third = await packages_of(shelf_in(tmp_path, DATA))
        record.write_text("{}")
        fourth = await packages_of(shelf_in(tmp_path, DATA))
        assert len({first, second, third, fourth}) == 4
        assert built(tmp_path) == [fourth.name, record.name]

    run(scenario)


def test_an_environment_is_looked_through_before_every_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        shelf = shelf_in(tmp_path, DATA)
        first = await packages_of(shelf)
        assert await packages_of(shelf) == first
        next(first.rglob("greeting.py")).chmod(0o700)
        second = await packages_of(shelf)
        assert second != first
        assert await packages_of(shelf) == second

    run(scenario)


def test_environments_count_for_the_room_of_the_cache(tmp_path: Path) -> None:
    async def scenario() -> None:
        shelf = shelf_in(tmp_path, DATA, max_bytes=1)
        await packages_of(shelf)
        assert len(built(tmp_path)) == 2
        shelf.give_back("attempt")
        other = bundle_with({wheel_name("greeting"): OTHER_BYTES}, lock_line("greeting", OTHER_BYTES), {})
        later = shelf_in(tmp_path, other, max_bytes=1)
        packages = await packages_of(later, digest_of(other))
        assert built(tmp_path) == [packages.name, f"{packages.name[:32]}.json"]

    run(scenario)


FAILURES: dict[str, tuple[bytes, str]] = {
    "a wheel with another hash": (bundle_with({wheel_name("greeting"): OTHER_BYTES}, LOCK, {}), "DO NOT MATCH"),
    "a package that is not there": (bundle_with(WHEELS, lock_line("missing", b""), {}), "No matching distribution"),
    "a source distribution": (
        bundle_with({"greeting-1.0.tar.gz": b"x", **WHEELS}, lock_line("greeting", b"x", "1.0.1"), {}),
        "No matching distribution",
    ),
    "a package that is not pinned": (bundle_with(WHEELS, "greeting\n", {}), "environment.lock"),
    "an index of its own": (bundle_with(WHEELS, "--index-url http://127.0.0.1/\n", {}), "environment.lock"),
}


@pytest.mark.parametrize(("data", "said"), FAILURES.values(), ids=FAILURES.keys())
def test_a_lock_that_cannot_be_met_fails_the_step_with_the_reason(tmp_path: Path, data: bytes, said: str) -> None:
    async def scenario() -> None:
        with pytest.raises(PluginUnavailable) as caught:
            await shelf_in(tmp_path, data).take("attempt", digest_of(data))
        failure = caught.value.failure
        assert getattr(failure, "class") == Failure.PERMANENT
        assert said in failure.cause
        assert built(tmp_path) == []

    run(scenario)


def test_an_index_that_cannot_be_reached_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "1")

    async def scenario() -> None:
        with pytest.raises(PluginUnavailable) as caught:
            await environments_of(tmp_path).get(environments.packages_of(LOCK.splitlines(), None))
        assert getattr(caught.value.failure, "class") == Failure.TRANSIENT

    run(scenario)


def environments_of(folder: Path) -> environments.Environments:
    return environments.Environments(folder / "environments", PluginCache(1 << 30, folder / "removed"), FakeClock())
