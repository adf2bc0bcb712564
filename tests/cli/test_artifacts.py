"""`towline run artifacts` and `towline run download`: whole, verified, resumed, and never outside the folder."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_fakes import FakeControlPlane, Refusal, Terminal

from towline.v1.artifact_pb2 import Artifact
from towline.v1.run_pb2 import Attempt
from towline.v1.run_service_pb2 import DownloadArtifactResponse, ListArtifactsResponse

DATA = os.urandom(1000)


def about(name: str = "report.csv", data: bytes = DATA) -> Artifact:
    digest = hashlib.sha256(data).hexdigest()
    return Artifact(
        node_id="build", attempt=1, name=name, size_bytes=len(data), digest=digest, attempt_state=Attempt.SUCCEEDED
    )


def keep(control_plane: FakeControlPlane, name: str = "report.csv", *breaks: int, digest: str = "") -> list[int]:
    """Has the control plane serve the file, breaking off after so many bytes of each try; returns the offsets."""
    offsets: list[int] = []
    left = list(breaks)

    def serve(request: Any) -> Iterator[DownloadArtifactResponse]:
        offsets.append(request.offset)
        artifact = about(name)
        artifact.digest = digest or artifact.digest
        yield DownloadArtifactResponse(artifact=artifact)
        end = request.offset + left.pop(0) if left else len(DATA)
        for start in range(request.offset, end, 100):
            yield DownloadArtifactResponse(chunk=DATA[start : min(start + 100, end)])
        if end < len(DATA):
            raise Refusal(grpc.StatusCode.UNAVAILABLE)

    control_plane.answers["DownloadArtifact"] = serve
    return offsets


def test_artifacts_are_listed(control_plane: FakeControlPlane, towline: Terminal) -> None:
    pages = {"": ListArtifactsResponse(artifacts=[about()], next_page_token="2")}
    pages["2"] = ListArtifactsResponse(artifacts=[about("deep/b.txt")])
    control_plane.answers["ListArtifacts"] = lambda request: pages[request.page_token]
    result = towline("run", "artifacts", "run-1", "--node", "build", "--attempt", "1")
    assert result.code == 0
    assert [line.split()[2] for line in result.stdout.splitlines()[1:]] == ["report.csv", "deep/b.txt"]
    first = control_plane.calls[0].request
    assert (first.run_id, first.node_id, first.attempt) == ("run-1", "build", 1)
    as_json = json.loads(towline("run", "artifacts", "run-1", "--output", "json").stdout)
    assert [each["name"] for each in as_json["artifacts"]] == ["report.csv", "deep/b.txt"]


def test_a_download_is_whole_and_has_its_name(
    control_plane: FakeControlPlane, towline: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keep(control_plane, "deep/er/report.csv")
    result = towline("run", "download", "run-1", "build", "deep/er/report.csv")
    assert result.code == 0
    assert (tmp_path / "report.csv").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["report.csv"]
    request = control_plane.request("DownloadArtifact")
    assert (request.run_id, request.node_id, request.name) == ("run-1", "build", "deep/er/report.csv")


def test_a_download_goes_on_where_it_broke(control_plane: FakeControlPlane, towline: Terminal, tmp_path: Path) -> None:
    offsets = keep(control_plane, "report.csv", 300, 300)
    target = tmp_path / "mine"
    assert towline("run", "download", "run-1", "build", "report.csv", "-o", str(target)).code == 0
    assert target.read_bytes() == DATA
    assert offsets == [0, 300, 600]


def test_the_next_command_goes_on_too(control_plane: FakeControlPlane, towline: Terminal, tmp_path: Path) -> None:
    offsets = keep(control_plane)
    (tmp_path / "mine.part").write_bytes(DATA[:400])
    assert towline("run", "download", "run-1", "build", "report.csv", "-o", str(tmp_path / "mine")).code == 0
    assert (tmp_path / "mine").read_bytes() == DATA
    assert offsets == [400]


def test_what_was_there_of_another_file_is_fetched_anew(
    control_plane: FakeControlPlane, towline: Terminal, tmp_path: Path
) -> None:
    offsets = keep(control_plane)
    (tmp_path / "mine.part").write_bytes(b"x" * 400)
    assert towline("run", "download", "run-1", "build", "report.csv", "-o", str(tmp_path / "mine")).code == 0
    assert (tmp_path / "mine").read_bytes() == DATA
    assert offsets == [400, 0]


def test_wrong_bytes_never_get_the_name(control_plane: FakeControlPlane, towline: Terminal, tmp_path: Path) -> None:
    keep(control_plane, digest="0" * 64)
    result = towline("run", "download", "run-1", "build", "report.csv", "-o", str(tmp_path / "mine"))
    assert result.code == 6
    assert "digest" in result.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["..", "a/..", ".", "a/"])
def test_a_name_that_is_no_file_needs_another(control_plane: FakeControlPlane, towline: Terminal, name: str) -> None:
    result = towline("run", "download", "run-1", "build", name)
    assert result.code == 2
    assert control_plane.calls == []


def test_what_is_not_there_is_not_found(control_plane: FakeControlPlane, towline: Terminal, tmp_path: Path) -> None:
    def refuse(request: Any) -> Iterator[DownloadArtifactResponse]:
        raise Refusal(grpc.StatusCode.NOT_FOUND, "there is no artifact x", "NOT_FOUND")

    control_plane.answers["DownloadArtifact"] = refuse
    assert towline("run", "download", "run-1", "build", "x", "-o", str(tmp_path / "mine")).code == 4
