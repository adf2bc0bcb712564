"""The documentation works as pasted: every shell block of every page, against a running installation."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import doc_pages
import doc_shell
import pytest
import toolchains
from processes import PASSWORD, Installation, Rest, installed

from towline.v1.workflow_pb2 import Concurrency, Condition, Dag, Edge, Node, NodeLimits, RetryConfig
from towline_controlplane.keyring import new_key

MOST_NOT_RUN = 6
"""So many blocks may need root or another host; each says so. Fewer is better."""
DAG = {
    "nodes": [
        {"id": "shout", "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase", "text": "hello"}},
        {"id": "say", "type": "SHELL", "config": {"command": "echo done"}},
    ],
    "edges": [{"from": "shout", "to": "say"}],
}
ADMIN = "admin@example.com"
PATIENCE_SECONDS = 120.0

# One installation for all of them: they start no other worker's.
pytestmark = [pytest.mark.xdist_group("documents"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """What a reader has running: an installation with an agent."""
    with asyncio.Runner() as runner:
        running = installed(tmp_path_factory.mktemp("documents"), agents=0, TOWLINE_SECRETS_KEY=new_key())
        there = runner.run(running.__aenter__())
        runner.run(there.start_agent("worker-1"))
        yield there
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def grpcurl() -> str:
    """The folder of grpcurl."""
    try:
        return str(Path(toolchains.grpcurl()).parent)
    except toolchains.NoTool as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason))
        pytest.skip(f"NO TOOL, so nothing is known of the pages: {reason}")


def addresses(installation: Installation) -> Mapping[str, str]:
    """Where what the pages name is here."""
    return {
        "a.example:50051,b.example:50051": installation.grpc,
        "https://towline.example.com:50051": installation.grpc,
        "127.0.0.1:50051": installation.grpc,
        "127.0.0.1:3000": installation.http,
    }


@pytest.fixture(scope="module")
def known(installation: Installation) -> dict[str, str]:
    """What a reader has: a token, and the ids of a workflow, of a run that has ended, and of a node."""
    rest = Rest(installation.http)
    rest.token = rest.post("/auth/login", {"email": ADMIN, "password": PASSWORD})["accessToken"]
    workflow = rest.post("/workflows", {"name": "shout", "dag": DAG})
    run = rest.post(f"/workflows/{workflow['id']}/execute", {})
    assert [*rest.events(run["id"])][-1]["type"] == "RUN_SUCCEEDED"
    return {"TOKEN": rest.token, "A_WORKFLOW": workflow["id"], "A_RUN": run["id"], "A_NODE": "shout"}


@pytest.fixture(scope="module")
def signed_in(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of the command line after an admin has signed in, the server by the name `default`."""
    folder = tmp_path_factory.mktemp("reader")
    for command in (
        ["context", "add", "default", "--server", installation.grpc],
        ["login", "--email", ADMIN, "--password-stdin"],
    ):
        reader = environment(folder, "")
        subprocess.run(["towline", *command], env=reader, input=PASSWORD, text=True, check=True, capture_output=True)
    return folder / "config"


def environment(folder: Path, tools: str) -> dict[str, str]:
    """What a reader's shell has: the commands, and nothing else of this machine's."""
    return {
        "PATH": os.pathsep.join([tools, toolchains.search_path()]),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "CLONE": str(doc_pages.ROOT),
        "PIP_CACHE_DIR": str(folder / "pip"),
        "TOWLINE_CONFIG_DIR": str(folder / "config"),
    }


@pytest.mark.parametrize("page", doc_pages.PAGES, ids=lambda page: page.name)
def test_a_page_works_as_pasted(
    page: Path, installation: Installation, known: dict[str, str], signed_in: Path, grpcurl: str, tmp_path: Path
) -> None:
    blocks = [*doc_pages.blocks(page)]
    if all(block.not_run for block in blocks):
        return
    shutil.copytree(signed_in, tmp_path / "config")
    reader = {**environment(tmp_path, grpcurl), **known}
    own = tmp_path / ".towline" / "secrets.json"

    def password() -> str:
        return json.loads(own.read_bytes())["admin_password"] if own.exists() else PASSWORD

    script = doc_pages.script(page, addresses(installation))
    told = doc_shell.run(script, tmp_path, reader, password, PATIENCE_SECONDS)
    assert told.code == 0, f"{told.stderr}\n-- stdout\n{told.stdout}"
    for block in blocks:
        for expected in block.prints:
            assert expected in told.stdout, f"{block.place}\n{told.stdout}"


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    left_out = [block for page in doc_pages.PAGES for block in doc_pages.blocks(page) if block.not_run]
    assert len(left_out) <= MOST_NOT_RUN, "\n".join(f"{block.place}: {block.not_run}" for block in left_out)
    for block in left_out:
        subprocess.run(["bash", "-n", "-c", block.text], check=True)


def test_every_shell_block_is_found() -> None:
    found = sum(1 for page in doc_pages.PAGES for _ in doc_pages.blocks(page))
    fences = sum(page.read_text().count("\n```sh\n") for page in doc_pages.PAGES)
    assert found == fences
    assert not [page for page in doc_pages.PAGES if "\n```bash\n" in page.read_text()], "say sh: only that is run"


@pytest.mark.parametrize("kind", [Dag, Node, NodeLimits, RetryConfig, Edge, Condition, Concurrency], ids=str)
def test_workflows_md_names_every_field(kind: type) -> None:
    page = (doc_pages.ROOT / "docs" / "workflows.md").read_text()
    fields: list[str] = [field.json_name for field in kind.DESCRIPTOR.fields]  # type: ignore[attr-defined]
    assert [field for field in fields if not re.search(rf'[`.]{field}[`.]|"{field}"', page)] == []
