"""Artifacts of predecessors in the inputs folder of a step, with an agent in process."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from running_agent import DONE, World, result_of, run, running, settled

from towline.v1.agent_service_pb2 import AttemptResult, Offer
from towline.v1.run_pb2 import Failure
from towline_agent.artifact_inputs import ArtifactInputs
from towline_agent.execution import Exit, Launch, OnOutput
from towline_agent.testing import FakeClock, FakeControlPlane, FakeTimer, make_offer


def fetching(node: str = "step", **artifacts: bytes) -> Offer:
    """An offer of a step that wants the artifacts of the node `source`."""
    offer = make_offer(node)
    offer.input_artifacts.fetch = True
    for name, data in artifacts.items():
        offer.input_artifacts.artifacts.add(
            node_id="source", name=name, size_bytes=len(data), digest=hashlib.sha256(data).hexdigest()
        )
    return offer


def read(path: Path) -> bytes:
    return path.read_bytes()


def poison(path: Path) -> None:
    """Does to an input what only its owner can."""
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o444, 0o555)
    path.chmod(0o600)
    path.write_bytes(b"poison")


class PatientClock(FakeClock):
    """A clock on which every wait is over at once."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> FakeTimer:
        timer = super().call_later(seconds, callback)
        self.advance(seconds)
        return timer


def reads_inputs(world: World, node: str = "step") -> dict[str, bytes]:
    """Has a node read all its inputs, and try to write to them as root may."""
    seen: dict[str, bytes] = {}

    async def play(launch: Launch, on_output: OnOutput) -> Exit:
        assert launch.inputs_dir is not None
        assert launch.environment["TOWLINE_INPUTS"] == str(launch.inputs_dir)
        for listed in json.loads(launch.stdin)["artifacts"]["source"]:
            path = Path(listed["path"])
            assert path == launch.inputs_dir / "source" / listed["name"]
            seen[listed["name"]] = read(path)
            poison(path)
        return DONE

    world.supervisor.script(node, play)
    return seen


def test_inputs_are_there_before_the_step_starts_and_nobody_spoils_them_for_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, slots=1) as world:
            data = os.urandom(200_000)
            world.control_plane.artifacts = {("source", "a"): data, ("source", "empty"): b""}
            first, second = reads_inputs(world, "first"), reads_inputs(world, "second")
            world.control_plane.offer(fetching("first", a=data, empty=b""))
            assert (await result_of(world, "first")).outcome == AttemptResult.SUCCEEDED
            world.control_plane.offer(fetching("second", a=data))
            await result_of(world, "second")
            assert first == {"a": data, "empty": b""}
            assert second == {"a": data}
            digest = hashlib.sha256(data).hexdigest()
            assert [offset for found, offset in world.control_plane.fetches if found == digest] == [0]
            await settled(world)

    run(scenario)


def test_a_broken_fetch_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        data = os.urandom(100)
        fake = FakeControlPlane(artifacts={("source", "a"): data}, break_fetch_after=deque([50, 30]))
        inputs = ArtifactInputs(tmp_path / "cache", fake, PatientClock(), max_bytes=1_000)
        await inputs.provide(fetching(a=data), tmp_path / "inputs")
        assert [offset for _, offset in fake.fetches] == [0, 50, 80]
        assert read(tmp_path / "inputs" / "source" / "a") == data

    run(scenario)


def test_a_damaged_cache_is_fetched_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            world.control_plane.artifacts = {("source", "a"): b"right"}
            (tmp_path / "inputs" / hashlib.sha256(b"right").hexdigest()).write_bytes(b"wrong")
            seen = reads_inputs(world)
            world.control_plane.offer(fetching(a=b"right"))
            await result_of(world)
            assert seen == {"a": b"right"}

    run(scenario)


def test_inputs_that_cannot_be_had_are_worth_another_try(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            world.control_plane.offer(fetching(gone=b"x"))
            result = await result_of(world)
            assert (result.failure.code, getattr(result.failure, "class")) == (
                "ARTIFACT_UNAVAILABLE",
                Failure.TRANSIENT,
            )
            assert world.supervisor.launches == []
            await settled(world)

    run(scenario)


@pytest.mark.parametrize(("node", "name"), [("../up", "a"), ("source", "../up"), ("source", "/up"), ("", "a")])
def test_names_of_inputs_are_not_believed(tmp_path: Path, node: str, name: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            offer = fetching(a=b"x")
            offer.input_artifacts.artifacts[0].node_id, offer.input_artifacts.artifacts[0].name = node, name
            world.control_plane.artifacts = {(node, name): b"x"}
            world.control_plane.offer(offer)
            assert getattr((await result_of(world)).failure, "class") == Failure.PERMANENT
            assert world.control_plane.fetches == []

    run(scenario)


def test_artifacts_that_are_not_fetched_are_listed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            offer = fetching(a=b"x")
            offer.input_artifacts.fetch = False
            world.control_plane.offer(offer)
            await result_of(world)
            [launch] = world.supervisor.launches
            assert json.loads(launch.stdin)["artifacts"] == {
                "source": [{"name": "a", "sizeBytes": 1, "digest": hashlib.sha256(b"x").hexdigest()}]
            }
            assert (launch.inputs_dir, "TOWLINE_INPUTS" in launch.environment) == (None, False)

    run(scenario)


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(artifacts={("source", name): name.encode() * 60 for name in "abc"})
        inputs = ArtifactInputs(tmp_path / "cache", fake, FakeClock(), max_bytes=130)
        for number, name in enumerate("abac"):
            offer = fetching(a=name.encode() * 60)
            offer.input_artifacts.artifacts[0].name = name
            await inputs.provide(offer, tmp_path / str(number))
        kept = {hashlib.sha256(name.encode() * 60).hexdigest() for name in "ac"}
        assert set(os.listdir(tmp_path / "cache")) == kept
        assert len(fake.fetches) == 3

    run(scenario)
