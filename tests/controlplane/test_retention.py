"""The duty that deletes what is past its time, and the deletion that a user asks for."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import OWNER, Rig, Scenario, succeeded

from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.errors import InvalidState, NotFound, RunDeleted
from towline_controlplane.loops.retention import Retention
from towline_controlplane.model import Run, RunState
from towline_controlplane.outputs import Outputs
from towline_controlplane.store import enrollment_tokens, runs, workflows
from towline_controlplane.tokens import fingerprint
from towline_dag.limits import MAX_INLINE_OUTPUT_BYTES

LARGE = f'"{"x" * MAX_INLINE_OUTPUT_BYTES}"'
DAY = 86_400


def duty(rig: Rig, folder: Path, days: float = 30) -> Retention:
    return Retention(rig.database, FolderBlobs(folder / "blobs"), days, 24)


async def run_to_its_end(rig: Rig, folder: Path, key: str | None = None) -> Run:
    version = await rig.workflow(["a"])
    run = await rig.start_version(version, key)
    agent = await rig.agent(f"agent-of-{run.id}")
    (offer,) = await agent.pull()
    outputs = Outputs(rig.database, FolderBlobs(folder / "blobs"))
    await rig.orchestrator.exchange((), await outputs.keep_large([agent.result(offer, succeeded("a", LARGE))]), None)
    return run


def blobs_in(folder: Path) -> int:
    return sum(path.is_file() for path in (folder / "blobs").rglob("*"))


async def exists(rig: Rig, run_id: str) -> bool:
    return await rig.database.read(lambda tx: runs.get_run(tx, run_id, None)) is not None


@pytest.mark.parametrize(("days", "kept"), [(30, False), (31, True), (0, True)])
def test_a_run_is_deleted_when_it_ended_long_ago(
    play: Callable[[Scenario], None], tmp_path: Path, days: float, kept: bool
) -> None:
    async def scenario(rig: Rig) -> None:
        old = await run_to_its_end(rig, tmp_path)
        rig.clock.advance(30 * DAY + 1)
        open_run = await rig.start(["a"])
        deleted = await duty(rig, tmp_path, days).tick()
        assert await exists(rig, old.id) is kept
        assert await exists(rig, open_run.id)
        assert deleted["runs"] == (not kept)

    play(scenario)


def test_two_replicas_delete_side_by_side(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        for _ in range(5):
            await run_to_its_end(rig, tmp_path)
        rig.clock.advance(31 * DAY)
        first, second = await asyncio.gather(duty(rig, tmp_path).tick(), duty(rig, tmp_path).tick())
        assert first["runs"] + second["runs"] == 5

    play(scenario)


def test_a_blob_goes_a_day_after_its_last_run(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        first = await run_to_its_end(rig, tmp_path)
        rig.clock.advance(2 * DAY)
        second = await run_to_its_end(rig, tmp_path)
        await rig.orchestrator.delete(first.id, OWNER)
        rig.clock.advance(2 * DAY)
        await duty(rig, tmp_path).tick()
        rig.clock.advance(2 * DAY)
        await duty(rig, tmp_path).tick()
        assert blobs_in(tmp_path) == 1
        await rig.orchestrator.delete(second.id, OWNER)
        await duty(rig, tmp_path).tick()
        assert blobs_in(tmp_path) == 1
        rig.clock.advance(DAY + 1)
        assert (await duty(rig, tmp_path).tick())["blobs"] == 1
        assert blobs_in(tmp_path) == 0

    play(scenario)


def test_a_blob_that_no_report_ever_named_goes_too(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        outputs = Outputs(rig.database, FolderBlobs(tmp_path / "blobs"))
        await outputs.keep_large([agent.result(offer, succeeded("a", LARGE))])
        rig.clock.advance(DAY + 1)
        assert (await duty(rig, tmp_path).tick())["blobs"] == 1

    play(scenario)


def test_only_a_run_that_has_ended_can_be_deleted_and_only_by_its_owner(
    play: Callable[[Scenario], None], tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        open_run = await rig.start(["b"])
        with pytest.raises(InvalidState):
            await rig.orchestrator.delete(open_run.id, OWNER)
        await rig.orchestrator.cancel(open_run.id, OWNER)
        with pytest.raises(NotFound):
            await rig.orchestrator.delete(open_run.id, "somebody else")
        await rig.orchestrator.delete(open_run.id, None)
        with pytest.raises(NotFound):
            await rig.orchestrator.delete(open_run.id, OWNER)
        with pytest.raises(NotFound):
            await rig.orchestrator.retry(open_run.id, OWNER)

    play(scenario)


def test_a_delete_beats_a_retry_in_the_same_batch(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a"])
        await rig.orchestrator.cancel(run.id, OWNER)
        deleted, retried = await asyncio.gather(
            rig.orchestrator.delete(run.id, OWNER), rig.orchestrator.retry(run.id, OWNER), return_exceptions=True
        )
        assert deleted is None
        assert isinstance(retried, NotFound)
        assert not await exists(rig, run.id)

    play(scenario)


def test_the_key_of_a_deleted_run_starts_no_second_one(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow(["a"])
        run = await rig.start_version(version, "key")
        await rig.orchestrator.cancel(run.id, OWNER)
        await rig.orchestrator.delete(run.id, OWNER)
        await duty(rig, tmp_path).tick()
        with pytest.raises(RunDeleted):
            await rig.start_version(version, "key")
        rig.clock.advance(DAY + 1)
        assert (await duty(rig, tmp_path).tick())["idempotency_keys"] == 1
        assert (await rig.start_version(version, "key")).id != run.id

    play(scenario)


def test_a_deleted_workflow_stays_until_its_last_run_is_gone(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow(["a"])
        run = await rig.start_version(version)
        await rig.database.write(lambda tx: workflows.delete_workflow(tx, version.workflow_id))
        rig.clock.advance(2 * DAY)
        assert (await duty(rig, tmp_path).tick())["workflows"] == 0
        agent = await rig.agent()
        (offer,) = await agent.pull()
        await agent.report(offer)
        assert (await rig.run(run.id)).state is RunState.SUCCEEDED
        rig.clock.advance(31 * DAY)
        assert (await duty(rig, tmp_path).tick())["workflows"] == 1

    play(scenario)


def test_workflows_and_tokens_that_nobody_can_use_go(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        version, other = await rig.workflow(["a"]), await rig.workflow(["a"])
        await rig.database.write(lambda tx: workflows.delete_workflow(tx, version.workflow_id))
        for name, lifetime in (("old", 1), ("new", 90 * DAY)):
            await rig.database.write(
                lambda tx, name=name, lifetime=lifetime: enrollment_tokens.insert(
                    tx, fingerprint(name), 1, tx.now + lifetime * 1_000_000
                )
            )
        rig.clock.advance(DAY + 1)
        deleted = await duty(rig, tmp_path).tick()
        assert (deleted["workflows"], deleted["enrollment_tokens"]) == (1, 1)
        assert await rig.database.read(lambda tx: workflows.get_version(tx, version.id)) is None
        assert await rig.database.read(lambda tx: workflows.get_version(tx, other.id)) is not None
        assert not await duty(rig, tmp_path).tick()

    play(scenario)
