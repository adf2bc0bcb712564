"""Artifacts from the agent's client to the user's: who may put and get what, and when it is seen."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from artifact_rig import ArtifactRig, artifact, control_plane, pieces, serve
from s3_server import ACCESS_KEY, SECRET_KEY, S3Server, new_bucket
from service_rig import Caller, refusal

from towline.v1.agent_service_pb2 import AttemptResult, Lease, ResultArtifact, Verdict
from towline_agent.control_plane import ControlPlaneError, LeaseLost, RequestRefused
from towline_controlplane.artifact_names import content_type_of

NOT_FOUND = grpc.StatusCode.NOT_FOUND


async def listed(user: Caller, run_id: str, **fields: object) -> list[tuple[str, int, str]]:
    answer = await user.call("RunService/ListArtifacts", runId=run_id, **fields)
    return [(each.node_id, each.attempt, each.name) for each in answer.artifacts]


async def bytes_of(user: Caller, run_id: str, node_id: str, name: str, **fields: object) -> bytes:
    answers = await user.call("RunService/DownloadArtifact", runId=run_id, nodeId=node_id, name=name, **fields)
    assert answers[0].artifact.name == name
    return b"".join(answer.chunk for answer in answers)


def test_what_an_attempt_made_is_seen_with_its_result_and_not_before(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        run_id = await rig.start(user)
        [offer] = await agent.pull()
        files = {"deep/ü.csv": os.urandom(700_000), "empty.html": b""}
        assert offer.limits.artifact_bytes == 1 << 20
        for name, data in files.items():
            assert (await agent.put(offer.lease, name, data)).complete
        assert await listed(user, run_id) == []
        assert (await refusal(bytes_of(user, run_id, "a", "empty.html"))).code == NOT_FOUND
        assert await agent.report(offer.lease, *(artifact(n, d) for n, d in files.items())) == Verdict.ACCEPTED
        assert await listed(user, run_id) == [("a", 1, "deep/ü.csv"), ("a", 1, "empty.html")]
        for name, data in files.items():
            assert await bytes_of(user, run_id, "a", name) == data
        [first, second] = (await user.call("RunService/ListArtifacts", runId=run_id)).artifacts
        assert (first.size_bytes, first.content_type) == (700_000, "text/csv; charset=utf-8")
        assert second.content_type == "application/octet-stream"
        assert first.digest == artifact("x", files["deep/ü.csv"]).digest
        step = (await user.call("RunService/GetStep", runId=run_id, nodeId="a")).step
        assert step.artifact_count == 2

    serve(tmp_path, scenario)


def test_artifacts_lie_in_a_store_with_the_s3_protocol(tmp_path: Path, rclone: S3Server) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        run_id = await rig.start(user, {}, {"fetchArtifacts": True}, edges=(("a", "b"),))
        [offer] = await agent.pull()
        data = os.urandom(900_000)
        await agent.make(offer, {"a": data})
        assert await bytes_of(user, run_id, "a", "a") == data
        assert await bytes_of(user, run_id, "a", "a", offset=500_000, limit=1_000) == data[500_000:501_000]
        assert await bytes_of(user, run_id, "a", "a", offset=-10) == data[-10:]
        [offer] = await agent.pull()
        assert await agent.read(offer, offset=300_000) == data[300_000:]

    store = {"MINIO_ENDPOINT": rclone.endpoint, "MINIO_ACCESS_KEY": ACCESS_KEY, "MINIO_SECRET_KEY": SECRET_KEY}
    serve(tmp_path, scenario, **store, MINIO_BUCKET=new_bucket())
    assert not (tmp_path / "blobs").exists()


RANGES = {
    (0, 0): b"0123456789",
    (3, 0): b"3456789",
    (3, 2): b"34",
    (-4, 0): b"6789",
    (-4, 2): b"67",
    (-40, 2): b"01",
    (10, 0): b"",
    (99, 5): b"",
    (8, 99): b"89",
}


def test_any_part_can_be_had(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        run_id = await rig.start(user)
        [offer] = await agent.pull()
        await agent.make(offer, {"a": b"0123456789"})
        for (offset, limit), data in RANGES.items():
            assert await bytes_of(user, run_id, "a", "a", offset=offset, limit=limit) == data, (offset, limit)
        wrong = await refusal(bytes_of(user, run_id, "a", "a", limit=-1))
        assert set(wrong.violations) == {"limit"}

    serve(tmp_path, scenario)


def test_an_upload_goes_on_where_it_is_wanted(tmp_path: Path) -> None:
    """Duplicates, gaps and bytes out of order are answered by the place to go on, and spoil nothing."""

    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        run_id = await rig.start(user)
        [offer] = await agent.pull()
        data, lease = os.urandom(500_000), offer.lease
        about = artifact("a", data)
        for offset, chunks, expected in [
            (100, data[100:], 0),  # bytes from beyond the end
            (0, data[:200_000], 200_000),
            (0, data[:200_000], 200_000),  # the same again
            (150_000, data[150_000:], 200_000),
            (300_000, data[300_000:], 200_000),
            (200_000, data[200_000:300_000], 300_000),
        ]:
            answer = await agent.client.put_artifact(lease, about, offset, pieces(chunks))
            assert (answer.complete, answer.next_offset) == (False, expected)
        assert (await agent.put(lease, "a", data, offset=300_000)).complete
        assert (await agent.put(lease, "a", data)).complete  # once more
        assert await agent.report(lease, about) == Verdict.ACCEPTED
        assert await bytes_of(user, run_id, "a", "a") == data
        assert not [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]

    serve(tmp_path, scenario)


def test_an_upload_outlives_the_control_plane(tmp_path: Path) -> None:
    data = os.urandom(500_000)

    async def scenario() -> None:
        async with control_plane(tmp_path) as rig:
            user, agent = await rig.user(), await rig.agent()
            await rig.start(user)
            [offer] = await agent.pull()
            about = artifact("a", data)
            answer = await agent.client.put_artifact(offer.lease, about, 0, pieces(data[:200_000]))
        async with control_plane(tmp_path) as rig:
            again = agent.at(rig.address)
            answer = await again.put(offer.lease, "a", data)
            assert (answer.complete, answer.next_offset) == (False, 200_000)
            assert (await again.put(offer.lease, "a", data, offset=200_000)).complete

    asyncio.run(scenario())


REFUSED: dict[str, tuple[ResultArtifact, type[ControlPlaneError], str]] = {
    "way out": (artifact("../a", b"x"), RequestRefused, "name"),
    "absolute": (artifact("/a", b"x"), RequestRefused, "name"),
    "no name": (artifact("", b"x"), RequestRefused, "name"),
    "line feed": (artifact("a\nb", b"x"), RequestRefused, "name"),
    "no digest": (ResultArtifact(name="a", size_bytes=1, digest="../../x"), RequestRefused, "digest"),
    "other digest": (ResultArtifact(name="a", size_bytes=1, digest="0" * 64), RequestRefused, "digest"),
    "below zero": (ResultArtifact(name="a", size_bytes=-1, digest="0" * 64), RequestRefused, "sizeBytes"),
    "more than said": (ResultArtifact(name="a", size_bytes=0, digest="0" * 64), RequestRefused, "digest"),
    "too large": (ResultArtifact(name="a", size_bytes=(1 << 20) + 1, digest="0" * 64), RequestRefused, "larger"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_an_artifact_is_refused(tmp_path: Path, case: str) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        about, error, words = REFUSED[case]
        user, agent = await rig.user(), await rig.agent()
        await rig.start(user)
        [offer] = await agent.pull()
        with pytest.raises(error, match=words):
            await agent.client.put_artifact(offer.lease, about, 0, pieces(b"x"))

    serve(tmp_path, scenario)


def test_an_attempt_has_a_bound_for_all_its_artifacts(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        await rig.start(user)
        [offer] = await agent.pull()
        assert (await agent.put(offer.lease, "a", b"a" * 600_000)).complete
        half = artifact("b", b"b" * 400_000)
        await agent.client.put_artifact(offer.lease, half, 0, pieces(b"b" * 100_000))
        with pytest.raises(RequestRefused, match="together"):  # what is on its way counts too
            await agent.put(offer.lease, "c", b"c" * 400_000)
        assert (await agent.put(offer.lease, "a", b"d" * 300_000)).complete  # in the place of the first one

    serve(tmp_path, scenario)


STALE: dict[str, Callable[[Lease], None]] = {
    "token": lambda lease: setattr(lease, "token", "x" * 43),
    "epoch": lambda lease: setattr(lease, "epoch", lease.epoch + 1),
    "attempt": lambda lease: setattr(lease, "attempt", 2),
    "node": lambda lease: setattr(lease, "node_id", "b"),
    "run": lambda lease: setattr(lease, "run_id", "other"),
}


@pytest.mark.parametrize("case", STALE)
def test_only_the_lease_may_put_and_get(tmp_path: Path, case: str) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        await rig.start(user, {}, {}, edges=(("a", "b"),))
        [offer] = await agent.pull()
        await agent.make(offer, {"a": b"x"})
        [offer] = await agent.pull()
        forged = type(offer)()
        forged.CopyFrom(offer)
        STALE[case](forged.lease)
        if case == "node":
            forged.lease.node_id = "a"
        with pytest.raises(LeaseLost):
            await agent.put(forged.lease, "a", b"x")
        with pytest.raises(LeaseLost):
            await agent.read(forged)
        other = await rig.agent("agent-2")
        with pytest.raises(LeaseLost):
            await other.put(offer.lease, "a", b"x")
        assert await agent.read(offer) == b"x"

    serve(tmp_path, scenario)


def test_nothing_is_put_once_the_attempt_has_ended(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        run_id = await rig.start(user)
        [offer] = await agent.pull()
        await agent.make(offer, {"a": b"first"})
        with pytest.raises(LeaseLost):
            await agent.put(offer.lease, "a", b"other")
        assert await bytes_of(user, run_id, "a", "a") == b"first"
        assert await agent.report(offer.lease, artifact("a", b"first")) == Verdict.ACCEPTED
        assert await agent.report(offer.lease) == Verdict.ALREADY_REPORTED

    serve(tmp_path, scenario)


@pytest.mark.parametrize("named", [artifact("b", b"x"), artifact("a", b"y"), ResultArtifact(name="a", size_bytes=1)])
def test_a_success_whose_artifacts_are_not_there_is_none(tmp_path: Path, named: ResultArtifact) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        run_id = await rig.start(user, {"retryConfig": {"maxAttempts": 1}})
        [offer] = await agent.pull()
        assert (await agent.put(offer.lease, "a", b"x")).complete
        assert await agent.report(offer.lease, named) == Verdict.ACCEPTED
        step = (await user.call("RunService/GetStep", runId=run_id, nodeId="a")).step
        assert (step.error.code, step.HasField("output")) == ("ARTIFACT_UNAVAILABLE", False)
        assert await listed(user, run_id) == []

    serve(tmp_path, scenario)


def test_a_failed_attempt_keeps_its_artifacts_and_passes_none_on(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        retry = {"retryConfig": {"backoffMs": 0, "retryOn": ["PLAYED"]}}
        run_id = await rig.start(user, retry, {}, edges=(("a", "b"),))
        [offer] = await agent.pull()
        await agent.put(offer.lease, "dump", b"1")
        await agent.report(offer.lease, artifact("dump", b"1"), outcome=AttemptResult.FAILED)
        assert await listed(user, run_id) == [("a", 1, "dump")]
        [offer] = await agent.pull()
        await agent.make(offer, {"report": b"2"})
        assert await listed(user, run_id) == [("a", 2, "report")]
        assert await listed(user, run_id, nodeId="a", attempt=1) == [("a", 1, "dump")]
        assert await bytes_of(user, run_id, "a", "dump", attempt=1) == b"1"
        [made] = (await user.call("RunService/ListArtifacts", runId=run_id, nodeId="a", attempt=1)).artifacts
        assert AttemptResult.Outcome.Name(AttemptResult.FAILED) == "FAILED"
        assert (
            made.attempt_state
            == made.DESCRIPTOR.fields_by_name["attempt_state"].enum_type.values_by_name["FAILED"].number
        )
        [offer] = await agent.pull()
        assert [(each.node_id, each.name) for each in offer.input_artifacts.artifacts] == [("a", "report")]

    serve(tmp_path, scenario)


def test_a_step_gets_at_its_direct_predecessors_only(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        await rig.start(user, {}, {"fetchArtifacts": True}, {}, edges=(("a", "b"), ("b", "c")))
        [offer] = await agent.pull()
        assert not offer.input_artifacts.fetch
        await agent.make(offer, {"secret": b"0123456789"})
        [second] = await agent.pull()
        assert second.input_artifacts.fetch
        assert await agent.read(second) == b"0123456789"
        assert await agent.read(second, offset=7) == b"789"
        await agent.make(second, {})
        [third] = await agent.pull()
        assert len(third.input_artifacts.artifacts) == 0
        third.input_artifacts.CopyFrom(second.input_artifacts)
        with pytest.raises(RequestRefused, match="no predecessor"):
            await agent.read(third)
        with pytest.raises(LeaseLost):
            await agent.read(second)

    serve(tmp_path, scenario)


def test_others_see_nothing(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, other, agent = await rig.user(), await rig.user("eve"), await rig.agent()
        run_id = await rig.start(user)
        [offer] = await agent.pull()
        await agent.make(offer, {"a": b"x"})
        unknown = await refusal(listed(other, "0" * len(run_id)))
        assert (await refusal(listed(other, run_id))).message.replace(run_id, "0" * len(run_id)) == unknown.message
        assert (await refusal(bytes_of(other, run_id, "a", "a"))).code == NOT_FOUND

    serve(tmp_path, scenario)


def test_bytes_are_sent_once_for_their_owner_and_to_know_a_digest_is_not_to_have_it(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, other, agent = await rig.user(), await rig.user("eve"), await rig.agent()
        data = os.urandom(300_000)
        about = artifact("a", data)
        await rig.start(user)
        [offer] = await agent.pull()
        await agent.make(offer, {"a": data})
        await rig.start(user)
        [offer] = await agent.pull()
        assert (await agent.client.put_artifact(offer.lease, about, 0, pieces(b""))).complete
        await rig.start(other)
        [offer] = await agent.pull()
        answer = await agent.client.put_artifact(offer.lease, about, 0, pieces(b""))
        assert not answer.complete
        with pytest.raises(RequestRefused, match="digest"):
            await agent.client.put_artifact(offer.lease, about, 0, pieces(b"x" * len(data)))
        assert (await agent.put(offer.lease, "a", data)).complete

    serve(tmp_path, scenario)


def test_pages(tmp_path: Path) -> None:
    async def scenario(rig: ArtifactRig) -> None:
        user, agent = await rig.user(), await rig.agent()
        run_id = await rig.start(user, {}, {})
        for offer in await agent.pull():
            await agent.make(offer, {f"{number:02}": b"x" for number in range(5)})
        seen: list[tuple[str, str]] = []
        token = ""
        while True:
            page = await user.call("RunService/ListArtifacts", runId=run_id, pageSize=3, pageToken=token)
            seen += [(each.node_id, each.name) for each in page.artifacts]
            token = page.next_page_token
            if not token:
                break
        assert seen == [(node, f"{number:02}") for node in "ab" for number in range(5)]

    serve(tmp_path, scenario)


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.xhtml", "a.js", "a.xml", "a", "html", "a.csv.HTM"])
def test_what_a_browser_might_run_has_no_type(name: str) -> None:
    assert content_type_of(name) == "application/octet-stream"
