"""Artifacts of attempts from the folder to the control plane, with an agent in process."""

import asyncio
import errno
import hashlib
import os
import threading
from collections import deque
from pathlib import Path

import pytest
from running_agent import DONE, World, result_of, run, running, settled

from towline.v1.agent_service_pb2 import AttemptResult, Directive, Offer
from towline.v1.run_pb2 import Failure
from towline_agent import artifact_folder
from towline_agent.artifact_spool import ArtifactSpool
from towline_agent.artifacts import Artifacts
from towline_agent.control_plane import RequestRefused
from towline_agent.execution import EndReason, Exit, Launch, OnOutput
from towline_agent.session import Session
from towline_agent.testing import FakeClock, FakeControlPlane, make_offer

FAILED = Exit(EndReason.EXITED, exit_code=1)


def plays(world: World, files: dict[str, bytes], end: Exit = DONE, node: str = "step") -> None:
    async def play(launch: Launch, on_output: OnOutput) -> Exit:
        for name, data in files.items():
            (launch.artifacts_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (launch.artifacts_dir / name).write_bytes(data)
        return end

    world.supervisor.script(node, play)


def names(result: AttemptResult) -> list[str]:
    return sorted(each.name for each in result.artifacts)


def test_a_result_comes_after_its_artifacts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            files = {"report.csv": b"a,b\n", "deep/large.bin": os.urandom(600_000), "empty": b""}
            seen: list[int] = []

            def on_result(result: AttemptResult) -> list[Offer]:
                seen.append(len(world.control_plane.artifacts))
                return []

            world.control_plane.on_result = on_result
            plays(world, files)
            world.control_plane.offer(make_offer())
            result = await result_of(world)
            assert result.outcome == AttemptResult.SUCCEEDED
            assert names(result) == sorted(files)
            assert seen == [3]
            assert world.control_plane.artifacts == {("step", name): data for name, data in files.items()}
            await settled(world)
            assert world.files("artifacts") == []

    run(scenario)


@pytest.mark.parametrize(("end", "outcome", "kept"), [(FAILED, "FAILED", 1), (Exit(EndReason.TIMEOUT), "TIMED_OUT", 1)])
def test_a_failed_attempt_keeps_what_it_made(tmp_path: Path, end: Exit, outcome: str, kept: int) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            plays(world, {"core": b"dump"}, end)
            world.control_plane.offer(make_offer())
            result = await result_of(world)
            assert AttemptResult.Outcome.Name(result.outcome) == outcome
            assert names(result) == ["core"] * kept

    run(scenario)


def test_too_large_is_a_failure_that_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            plays(world, {"huge": b"x" * (1024 * 1024 + 1)})
            world.control_plane.offer(make_offer())
            result = await result_of(world)
            assert result.outcome == AttemptResult.FAILED
            assert (result.failure.code, getattr(result.failure, "class")) == ("ARTIFACT_LIMIT", Failure.PERMANENT)
            assert "1,048,576 bytes" in result.failure.cause
            assert (result.output_json, names(result)) == (b"", [])
            await settled(world)

    run(scenario)


def test_a_failed_attempt_with_too_much_stays_as_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            plays(world, {"huge": b"x" * (1024 * 1024 + 1)}, FAILED)
            world.control_plane.offer(make_offer())
            result = await result_of(world)
            assert (result.failure.code, names(result)) == ("EXIT_CODE", [])
            await settled(world)
            assert b"The artifacts are more than is allowed" in world.control_plane.logs["step"].data

    run(scenario)


def test_what_is_left_is_said_in_the_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:

            async def play(launch: Launch, on_output: OnOutput) -> Exit:
                (launch.artifacts_dir / "passwd").symlink_to("/etc/passwd")
                return DONE

            world.supervisor.script("step", play)
            world.control_plane.offer(make_offer())
            result = await result_of(world)
            assert (result.outcome, names(result)) == (AttemptResult.SUCCEEDED, [])
            await settled(world)
            assert b" S- artifact 'passwd' was left: it is a symbolic link" in world.control_plane.logs["step"].data
            assert world.files("artifacts") == []

    run(scenario)


def test_a_secret_in_a_name_is_masked_everywhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            plays(world, {"of-hunter2-hunter2.txt": b"1"})
            offer = make_offer()
            offer.secrets["TOKEN"] = "hunter2-hunter2"
            world.control_plane.offer(offer)
            result = await result_of(world)
            assert names(result) == ["of-***.txt"]
            assert result.artifacts[0].digest == hashlib.sha256(b"1").hexdigest()
            assert list(world.control_plane.artifacts) == [("step", "of-***.txt")]

    run(scenario)


def test_an_upload_goes_on_where_it_broke(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            world.control_plane.break_put_after.extend([300_000, 300_000])
            data = os.urandom(900_000)
            plays(world, {"a": data})
            world.control_plane.offer(make_offer())
            await result_of(world)
            assert world.control_plane.artifacts["step", "a"] == data
            resumed = [offset for _, offset in world.control_plane.puts]
            assert resumed[0] == 0
            assert {300_000, 600_000} <= set(resumed)

    run(scenario)


def test_results_wait_with_their_artifacts_while_the_control_plane_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, slots=1) as world:
            plays(world, {"a": b"1"})
            world.control_plane.refused.append("put_artifact")
            world.control_plane.offer(make_offer(), make_offer("next"))
            await result_of(world, "next")  # the slot is free while the upload waits
            assert "step" not in world.control_plane.results
            world.control_plane.refused.clear()
            assert names(await result_of(world)) == ["a"]
            await settled(world)

    run(scenario)


def test_a_lease_that_is_lost_ends_the_upload(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(lost_leases={"step"})
        async with running(tmp_path, fake=fake) as world:
            plays(world, {"a": b"1"})
            world.control_plane.offer(make_offer())
            await result_of(world)
            assert world.control_plane.artifacts == {}
            assert len(world.control_plane.puts) == 1

    run(scenario)


def test_a_release_ends_the_upload_and_the_result(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            plays(world, {"a": b"1"})
            world.control_plane.refused.append("put_artifact")
            offer = make_offer()
            world.control_plane.offer(offer)
            await world.supervisor.ended("step")
            world.control_plane.direct(Directive.RELEASE, offer.lease)
            await settled(world)
            assert (world.control_plane.results, world.files("artifacts")) == ({}, [])

    run(scenario)


def test_what_the_control_plane_does_not_take_makes_a_success_a_failure(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            plays(world, {"a": b"1"})
            world.control_plane.errors["put_artifact"] = deque([RequestRefused("too many")])
            world.control_plane.offer(make_offer())
            result = await result_of(world)
            assert (result.failure.code, result.failure.cause, names(result)) == ("ARTIFACT_REFUSED", "too many", [])

    run(scenario)


def test_a_full_disk_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, findings: object, into: Path) -> list[object]:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario() -> None:
        monkeypatch.setattr(artifact_folder, "take", full)
        async with running(tmp_path) as world:
            plays(world, {"a": b"1"})
            world.control_plane.offer(make_offer())
            result = await result_of(world)
            assert (result.failure.code, getattr(result.failure, "class")) == (
                "ARTIFACT_UNAVAILABLE",
                Failure.TRANSIENT,
            )
            await settled(world)
            assert world.files("artifacts") == []

    run(scenario)


def test_a_control_plane_that_takes_none_gets_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            plays(world, {"a": b"1"})
            offer = make_offer()
            offer.limits.artifact_bytes = 0
            world.control_plane.offer(offer)
            assert (await result_of(world)).failure.code == "ARTIFACT_LIMIT"

    run(scenario)


def test_an_attempt_that_is_given_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(folder: Path, findings: object, into: Path) -> list[object]:
        (into / "0").write_bytes(b"half")
        begun.set()
        go_on.wait(20)
        return []

    async def scenario() -> None:
        monkeypatch.setattr(artifact_folder, "take", slow)
        folder = tmp_path / "work" / "0" / "artifacts"
        await asyncio.to_thread(folder.mkdir, parents=True)
        await asyncio.to_thread((folder / "a").write_bytes, b"1")
        clock, spool = FakeClock(), tmp_path / "spool"
        artifacts = Artifacts(ArtifactSpool(spool, 100), FakeControlPlane(), Session(clock, lambda: None), clock)
        result = AttemptResult(outcome=AttemptResult.SUCCEEDED)
        collecting = asyncio.create_task(artifacts.collect("key", folder, 100, result, lambda text: None))
        await asyncio.to_thread(begun.wait, 20)
        collecting.cancel()
        await asyncio.wait([collecting], timeout=0)
        assert os.listdir(spool) == ["key"]  # nobody removes what a thread still writes
        go_on.set()
        await asyncio.wait([collecting])
        assert (collecting.cancelled(), os.listdir(spool), len(artifacts)) == (True, [], 0)

    run(scenario)


def test_copies_that_are_gone_are_worth_another_try(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            plays(world, {"a": b"1"})
            world.control_plane.refused.append("put_artifact")
            world.control_plane.offer(make_offer(), make_offer("other"))
            await result_of(world, "other")
            for copy in [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]:
                copy.unlink()
            world.control_plane.refused.clear()
            assert (await result_of(world)).failure.code == "ARTIFACT_UNAVAILABLE"

    run(scenario)


def test_room_is_given_in_turn(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "left").mkdir()
        spool, waits = ArtifactSpool(tmp_path, 100), list[str]()
        assert not (tmp_path / "left").exists()
        await spool.take_room("large", 500, lambda: waits.append("large"))
        second = asyncio.create_task(spool.take_room("second", 60, lambda: waits.append("second")))
        third = asyncio.create_task(spool.take_room("third", 40, lambda: waits.append("third")))
        await asyncio.sleep(0)
        assert not second.done()
        assert waits == ["second", "third"]
        spool.give_back("large")
        await asyncio.gather(second, third)
        spool.give_back("second")
        spool.give_back("unknown")
        assert os.listdir(tmp_path) == ["third"]

    run(scenario)
