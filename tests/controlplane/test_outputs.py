"""Large outputs: stored before their reports, fetched for the offers that need them, never in the way of others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rig import FakeAgent, Rig, Scenario, succeeded

from towline.v1 import agent_service_pb2 as pb
from towline_controlplane.blobs import Blobs, FolderBlobs
from towline_controlplane.errors import LimitExceeded, Unavailable
from towline_controlplane.handouts import StepOffer
from towline_controlplane.model import Output, RunState, StepState
from towline_controlplane.outputs import Outputs
from towline_controlplane.services import offers
from towline_controlplane.services.agent_messages import AgentLimits
from towline_controlplane.services.offers import OfferMessages
from towline_controlplane.services.plugin_schemas import PluginSchemas
from towline_controlplane.services.secret_handout import SecretHandout
from towline_controlplane.store import released_blobs
from towline_controlplane.submissions import Verdict
from towline_dag.limits import MAX_INLINE_OUTPUT_BYTES

LARGE = f'"{"x" * MAX_INLINE_OUTPUT_BYTES}"'
DIAMOND = (["a", "b", "z"], [("a", "z"), ("b", "z")])


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def writer(rig: Rig, blobs: Blobs, cache_bytes: int = 0) -> OfferMessages:
    return OfferMessages(
        rig.orchestrator,
        Outputs(rig.database, blobs, cache_bytes),
        AgentLimits(5.0),
        PluginSchemas(rig.database),
        SecretHandout(rig.database, None),
    )


async def report(rig: Rig, blobs: Blobs, agent: FakeAgent, offer: StepOffer, output: str) -> None:
    (kept,) = await Outputs(rig.database, blobs).keep_large(
        [agent.result(offer, succeeded(offer.step.node_id, output))]
    )
    verdicts, _ = await rig.orchestrator.exchange((), [kept], None)
    assert verdicts == [Verdict.ACCEPTED]


async def report_all(rig: Rig, blobs: Blobs, agent: FakeAgent, output: str) -> None:
    for offer in await agent.pull(want=200):
        await report(rig, blobs, agent, offer, output)


def stored_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("output", "files"), [(LARGE[3:-1].join('""'), 0), (LARGE, 1)], ids=["256 KiB", "more"])
def test_an_output_goes_to_the_blobs_by_its_size(
    play: Callable[[Scenario], None], tmp_path: Path, output: str, files: int
) -> None:
    async def scenario(rig: Rig) -> None:
        blobs = FolderBlobs(tmp_path / "blobs")
        run = await rig.start(["a"])
        agent = await rig.agent()
        await report_all(rig, blobs, agent, output)
        step = (await rig.steps(run.id))["a"]
        assert (step.output is None) == (step.output_digest is not None) == bool(files)
        assert len(stored_in(tmp_path / "blobs")) == files
        stored = Output(step.output, step.output_digest)
        outputs = Outputs(rig.database, blobs)
        assert await outputs.texts({"a": stored}, len(output)) == {"a": output}
        with pytest.raises(LimitExceeded):
            await Outputs(rig.database, blobs).texts({"a": stored}, len(output) - 1)
        with pytest.raises(LimitExceeded):
            await outputs.texts({"a": stored}, len(output) - 1)

    play(scenario)


def test_the_cache_is_bounded_and_saves_a_read(
    play: Callable[[Scenario], None], blobs: FolderBlobs, tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        outputs = Outputs(rig.database, blobs, cache_bytes=2 * len(LARGE))
        digests = [await blobs.put_bytes(LARGE.replace("x", letter).encode()) for letter in "uvw"]
        for digest in digests:
            await outputs.texts({"a": Output(digest=digest)}, 1 << 20)
        for path in stored_in(tmp_path / "blobs"):
            path.unlink()
        for digest in digests[1:]:
            assert await outputs.texts({"a": Output(digest=digest)}, 1 << 20)
        with pytest.raises(Exception, match="there is no blob"):
            await outputs.texts({"a": Output(digest=digests[0])}, 1 << 20)

    play(scenario)


def test_a_successor_gets_large_and_small_outputs_as_inputs(
    play: Callable[[Scenario], None], blobs: FolderBlobs
) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(*DIAMOND)
        agent = await rig.agent()
        first, second = await agent.pull()
        await report(rig, blobs, agent, first, LARGE)
        await report(rig, blobs, agent, second, '{"n":1}')
        (message,) = await writer(rig, blobs).write(await agent.pull())
        assert message.inputs_json.decode() == f'{{"a":{LARGE},"b":{{"n":1}}}}'

    play(scenario)


def test_inputs_beyond_the_limit_fail_the_step_and_not_the_queue(
    play: Callable[[Scenario], None], blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "MAX_INPUTS_BYTES", 3 * MAX_INLINE_OUTPUT_BYTES)

    async def scenario(rig: Rig) -> None:
        sources = [f"s{number}" for number in range(4)]
        run = await rig.start([*sources, "z"], [(source, "z") for source in sources])
        agent = await rig.agent()
        await report_all(rig, blobs, agent, LARGE)
        other = await rig.start(["c"])
        (message,) = await writer(rig, blobs).write(await agent.pull())
        assert message.lease.run_id == other.id
        step = (await rig.steps(run.id))["z"]
        assert step.error is not None
        assert (step.state, step.error.code) == (StepState.FAILED, "INPUTS_TOO_LARGE")
        assert (await rig.run(run.id)).state is RunState.FAILED

    play(scenario)


def test_offers_that_do_not_fit_into_one_answer_come_with_the_next(
    play: Callable[[Scenario], None], blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "MAX_OFFERS_BYTES", 3 * MAX_INLINE_OUTPUT_BYTES)

    async def scenario(rig: Rig) -> None:
        targets = [f"t{number}" for number in range(5)]
        await rig.start(["a", *targets], [("a", target) for target in targets])
        agent, write = await rig.agent(), writer(rig, blobs).write
        await report_all(rig, blobs, agent, LARGE)
        rounds: list[int] = []
        while messages := await write(await agent.pull()):
            rounds.append(len(messages))
            assert all(message.lease.attempt == 1 for message in messages)
        assert rounds == [2, 2, 1]

    play(scenario)


def test_an_output_that_cannot_be_read_postpones_the_step_and_costs_no_try(
    play: Callable[[Scenario], None], blobs: FolderBlobs, tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a", "z"], [("a", "z")])
        agent, write = await rig.agent(), writer(rig, blobs).write
        await report_all(rig, blobs, agent, LARGE)
        (file,) = stored_in(tmp_path / "blobs")
        file.rename(tmp_path / "away")
        assert await write(await agent.pull()) == []
        assert await agent.pull() == []
        rig.clock.advance(1)
        (tmp_path / "away").rename(file)
        messages: list[pb.Offer] = await write(await agent.pull())
        assert [(message.lease.attempt, message.lease.epoch) for message in messages] == [(1, 2)]

    play(scenario)


def test_an_output_that_stays_unreadable_fails_the_step(
    play: Callable[[Scenario], None], blobs: FolderBlobs, tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a", "z"], [("a", "z")])
        agent, write = await rig.agent(), writer(rig, blobs).write
        await report_all(rig, blobs, agent, LARGE)
        (file,) = stored_in(tmp_path / "blobs")
        file.unlink()
        handed_out = 0
        while (given := await agent.pull()) and await write(given) == []:
            handed_out += 1
            rig.clock.advance(60)
        assert handed_out == offers.MAX_UNREADABLE
        step = (await rig.steps(run.id))["z"]
        assert step.error is not None
        assert (step.state, step.error.code) == (StepState.FAILED, "OUTPUT_UNAVAILABLE")

    play(scenario)


def test_an_offer_that_lapsed_meanwhile_is_not_taken_back(play: Callable[[Scenario], None], blobs: FolderBlobs) -> None:
    from towline_controlplane.loops.offer_expiry import OfferExpiry

    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a", "z"], [("a", "z")])
        agent = await rig.agent()
        await report_all(rig, blobs, agent, LARGE)
        given = await agent.pull()
        rig.clock.advance(6)
        await OfferExpiry(rig.database, rig.orchestrator, 0).tick()
        (again,) = await agent.pull()
        broken = [replace(given[0], inputs={"a": Output(digest="0" * 64)})]
        assert await writer(rig, blobs).write(broken) == []
        assert (await rig.steps(run.id))["z"].epoch == again.attempt.epoch == 2
        assert (await rig.steps(run.id))["z"].state is StepState.LEASED

    play(scenario)


def test_bytes_that_are_being_removed_cannot_be_used(play: Callable[[Scenario], None], blobs: FolderBlobs) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        result = agent.result(offer, succeeded("a", LARGE))
        outputs = Outputs(rig.database, blobs)
        await outputs.keep_large([result])
        rig.clock.advance(10)
        (digest,) = await rig.database.write(lambda tx: released_blobs.condemn(tx, tx.now, 0, 10))
        with pytest.raises(Unavailable):
            await outputs.keep_large([result])
        await rig.database.write(lambda tx: released_blobs.forget(tx, [digest]))
        (kept,) = await outputs.keep_large([result])
        assert kept.end.output_digest == digest

    play(scenario)
