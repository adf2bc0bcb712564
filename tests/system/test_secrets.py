"""Secrets through real processes: plugins do all they can to give them away, and nobody finds them anywhere.

The values are planted; then everything that the installation has written, said, stored or shows of itself is searched.
"""

import asyncio
import base64
import contextlib
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest
from processes import Installation, Rest, installed

from towline_controlplane.keyring import new_key

TOKEN = "planted/token+of ours"
KEY = "-----BEGIN KEY-----\nplantedlineone==\nplantedlinetwo==\n-----END KEY-----\n"
NEEDLES = [
    *(TOKEN, quote(TOKEN, safe=""), base64.b64encode(TOKEN.encode()).decode()[:-4]),
    *("plantedlineone", "plantedlinetwo", json.dumps(KEY)[1:-3], base64.b64encode(KEY.encode()).decode()[:-4]),
]
BLAB = """
import base64, os, sys, time, urllib.parse

def main(config, inputs, secrets):
    token, key = secrets["TOKEN"], secrets["KEY"]
    for letter in token:
        os.write(1, letter.encode())
    print()
    print(key, end="", flush=True)
    for start in range(0, len(key), 7):
        os.write(2, key[start:start + 7].encode())
    print("Authorization: Basic", base64.b64encode(f"me:{token}".encode()).decode())
    print("?token=" + urllib.parse.quote(token, safe=""), dict(os.environ), sys.argv)
    if config.get("raises"):
        raise ValueError(f"the token {token} and the key {key} are wrong")
    return {"token": token, "keys": [key, {key: base64.b64encode(key.encode()).decode()}], "n": len(token + key)}
"""
MANIFEST = """
name = "teller"
version = "1.0.0"
entry_point = "run"
[permissions]
secrets = ["TOKEN"]
"""
PROGRAM = """#!/bin/sh
value=$(cat <&$TOWLINE_SECRETS_FD)
echo "the document is $value"
env
while [ ! -e GO ]; do sleep 0.05; done
printf '{"said": "%s"}' "$(printf %s "$value" | base64 -w0)" >&3
"""


def bundle() -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb") as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in (("plugin.toml", MANIFEST), ("run", PROGRAM)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content.encode()))
    return file.getvalue()


def plant(rest: Rest) -> None:
    rest.post("/plugins", bundle())
    for name, value in (("TOKEN", TOKEN), ("KEY", KEY)):
        assert rest.call("PUT", f"/secrets/{name}", {"value": value}, {})["version"] == 1
    for name, plugin in (("TOKEN", "PYTHON"), ("KEY", "PYTHON"), ("TOKEN", "teller"), ("TOKEN", "SHELL")):
        granted = rest.call("PUT", f"/secrets/{name}/grants/{plugin}", None, {})
        assert plugin in granted["plugins"]
    for name, plugin in (("TOKEN", "HTTP_REQUEST"),):
        rest.call("PUT", f"/secrets/{name}/grants/{plugin}", None, {})


def insult(rest: Rest) -> None:
    """Requests that cannot be served, with the value in all the wrong places."""
    for method, path, body in (
        ("PUT", "/secrets/TOKEN", {"value": [TOKEN]}),
        ("PUT", "/secrets/TOKEN", {"valeu": TOKEN}),
        ("PUT", "/secrets/TOKEN", {"value": {"a": TOKEN}}),
        ("PUT", "/secrets/TOKEN", {"value": TOKEN + "\0"}),
        ("PUT", "/secrets/TOKEN", {"value": TOKEN * 10_000}),
        ("PUT", "/secrets/token", {"value": TOKEN}),
        ("POST", "/secrets", {"name": "TOKEN", "value": TOKEN}),
        ("POST", "/secrets", {"name": {"TOKEN": 1}, "value": TOKEN}),
    ):
        answer = rest.call(method, path, body, {})
        assert answer["error"]["code"] in (400, 409), answer
        assert_clean(json.dumps(answer).encode(), answer)


def blabber(node_id: str, **config: object) -> dict[str, Any]:
    once = {"maxAttempts": 1}
    node = {"id": node_id, "type": "PYTHON", "config": {"code": BLAB, **config}, "retryConfig": once}
    return node | {"secrets": ["TOKEN", "KEY"]}


def start(rest: Rest, *nodes: dict[str, Any]) -> str:
    workflow = rest.post("/workflows", {"name": "w", "dag": {"nodes": nodes}})
    assert "id" in workflow, workflow
    return rest.post(f"/workflows/{workflow['id']}/execute", {})["id"]


async def finish(rest: Rest, run_id: str) -> dict[str, Any]:
    await asyncio.to_thread(lambda: list(rest.events(run_id)))
    return rest.get(f"/runs/{run_id}")


def told(rest: Rest, run_id: str) -> str:
    """All that the API tells of a run."""
    answers: list[object] = [rest.get(f"/runs/{run_id}"), rest.get(f"/runs/{run_id}/steps")]
    answers += [
        rest.get(f"/runs/{run_id}/steps/{step['nodeId']}") for step in rest.get(f"/runs/{run_id}/steps")["steps"]
    ]
    answers += [rest.get("/secrets"), list(rest.events(run_id)), list(rest.stream(f"/runs/{run_id}/logs"))]
    return json.dumps(answers, ensure_ascii=False)


def lines(rest: Rest, run_id: str) -> list[str]:
    return [data["text"] for name, data in rest.stream(f"/runs/{run_id}/logs") if name != "end"]


def assert_clean(data: bytes, where: object) -> None:
    found = [needle for needle in NEEDLES if needle.encode() in data]
    assert not found, f"{found} in {where}"


def search_processes(installation: Installation) -> None:
    """Looks at the environment and the arguments of every process there is, plugins among them, and for cores."""
    for name in ("controlplane", "gateway"):
        assert psutil.Process(installation.parts[name].pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
    for process in (tree for child in psutil.Process().children() for tree in (child, *child.children(recursive=True))):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            for file in ("environ", "cmdline"):
                assert_clean(Path(f"/proc/{process.pid}/{file}").read_bytes(), f"{process} {file}")


def search_files(folder: Path) -> None:
    """Looks into every file; the installation may take some away meanwhile."""
    seen: set[str] = set()
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names if Path(place, name).is_file()):
            with contextlib.suppress(FileNotFoundError):
                assert_clean(path.read_bytes(), path)
                seen.add(path.name)
    assert {"credential.json", "controlplane.log"} <= seen


def dump(url: str) -> Iterator[bytes]:
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
        assert ("secrets",) in tables
        for (table,) in tables:
            # As bytes, not as the hexadecimal digits of a dump.
            for (row,) in connection.execute(f'SELECT row_to_json(t)::text FROM "{table}" t'):  # type: ignore[arg-type]
                yield row.encode()
        for (data,) in connection.execute("SELECT data FROM log_chunks").fetchall():
            yield bytes(data)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_nobody_finds_what_a_plugin_was_given(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> None:
    settings = {"TOWLINE_SECRETS_KEY": new_key()}
    if database == "postgres":
        settings["DATABASE_URL"] = request.getfixturevalue("postgres_url")

    async def scenario() -> None:
        async with installed(tmp_path, net=None, agents=1, replicas=1, **settings) as installation:
            rest = Rest(installation.http)
            rest.sign_in()
            plant(rest)
            insult(rest)
            returned, raised = start(rest, blabber("a")), start(rest, blabber("b", raises=True))
            assert (await finish(rest, returned))["state"] == "SUCCEEDED"
            assert (await finish(rest, raised))["state"] == "FAILED"
            output = rest.get(f"/runs/{returned}/steps/a")["output"]
            assert output == {"token": "***", "keys": ["***\n", {"***\n": "***"}], "n": len(TOKEN + KEY)}
            said = lines(rest, returned)
            assert said.count("***") >= 2
            assert any(line.startswith("Authorization: Basic ") and "***" in line for line in said)
            assert "The output of the plugin held a secret, which was replaced by ***" in said
            error = rest.get(f"/runs/{raised}/steps/b")["error"]
            assert error["message"].startswith("ValueError: the token *** and the key ***")
            await search_while_it_runs(installation, rest)
            for run_id in (returned, raised):
                assert_clean(told(rest, run_id).encode(), "the API")
            search_files(tmp_path)
        search_files(tmp_path)
        for row in dump(settings["DATABASE_URL"]) if database == "postgres" else ():
            assert_clean(row, "PostgreSQL")

    asyncio.run(scenario())


async def search_while_it_runs(installation: Installation, rest: Rest) -> None:
    """A program of a bundle and a shell command that have read their secrets and still run."""
    shell = {
        "id": "shell",
        "type": "SHELL",
        "config": {
            "command": "cat <&$TOWLINE_SECRETS_FD >/dev/null; echo ready; while [ ! -e GO ]; do sleep 0.05; done"
        },
        "secrets": ["TOKEN"],
    }
    run_id = start(rest, {"id": "program", "type": "teller"}, shell)
    folder = installation.folder

    def read() -> None:
        wanted = {"ready", "the document is"}
        for name, data in rest.stream(f"/runs/{run_id}/logs?follow=true"):
            assert name != "end", data
            wanted -= {each for each in wanted if data["text"].startswith(each)}
            if not wanted:
                return

    await asyncio.to_thread(read)
    search_processes(installation)
    search_files(folder)
    for place in (folder / "agent-1" / "work").iterdir():
        (place / "work" / "GO").touch()
    run = await finish(rest, run_id)
    assert run["state"] == "SUCCEEDED"
    assert 'the document is {"TOKEN": "***"}' in lines(rest, run_id)
    assert_clean(told(rest, run_id).encode(), "the API")


def test_a_secret_that_is_gone_fails_the_step_and_says_which(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_SECRETS_KEY=new_key()) as installation:
            rest = Rest(installation.http)
            rest.sign_in()
            plant(rest)
            workflow = rest.post("/workflows", {"name": "w", "dag": {"nodes": [blabber("a")]}})
            rest.call("DELETE", "/secrets/KEY", None, {})
            run = rest.post(f"/workflows/{workflow['id']}/execute", {})
            assert (await finish(rest, run["id"]))["state"] == "FAILED"
            error = rest.get(f"/runs/{run['id']}/steps/a")["error"]
            assert (error["code"], error["class"]) == ("SECRET_UNAVAILABLE", "PERMANENT")
            assert "the secret KEY does not exist any more" in error["message"]
            # Another key at the next start: not a crash, and again it is said which secret it is about.
            rest.call("PUT", "/secrets/KEY", {"value": KEY}, {})
            rest.call("PUT", "/secrets/KEY/grants/PYTHON", None, {})
            await installation.kill("controlplane")
            installation.environments["controlplane"]["TOWLINE_SECRETS_KEY"] = new_key()
            await installation.restart("controlplane")
            run = rest.insist("POST", f"/workflows/{workflow['id']}/execute", {}, **{"Idempotency-Key": "again"})
            await asyncio.to_thread(lambda: list(rest.events(run["id"])))
            error = rest.get(f"/runs/{run['id']}/steps/a")["error"]
            assert error["code"] == "SECRET_UNAVAILABLE"
            assert "cannot be decrypted: it was encrypted with the key" in error["message"]

    asyncio.run(scenario())
