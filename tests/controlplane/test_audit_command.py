"""The audit as a command: beside a control plane, chunk by chunk, with an exit code that says what it found."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import Rig, Scenario, control_plane

from towline_controlplane.audit import __main__ as command
from towline_controlplane.audit.auditor import audit_database
from towline_controlplane.store import tables
from towline_controlplane.store.database import Database, Transaction

MANY = 201
"""More runs than a chunk."""


def lose_a_step(tx: Transaction) -> None:
    newest = tx.connection.execute(tables.runs.select().order_by(tables.runs.c.id.desc()).limit(1)).one()
    tx.connection.execute(tables.steps.delete().where(tables.steps.c.run_id == newest.id))


async def start_many(rig: Rig) -> None:
    version = await rig.workflow(["a"])
    await asyncio.gather(*[rig.start_version(version) for _ in range(MANY)])


def test_every_chunk_is_audited(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await start_many(rig)
        assert (await audit_database(rig.database)).runs == MANY
        await rig.database.write(lambda tx: tx.connection.execute(tables.queues.delete()))
        early = await audit_database(rig.database, most=1)
        assert (len(early.breaches), early.complete) == (1, False)
        await rig.database.write(lambda tx: tx.connection.execute(tables.runs.delete()))
        assert (await audit_database(rig.database)).breaches == ()

    play(scenario)


def test_it_looks_on_beside_a_control_plane(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path) as rig:
            await rig.start(["a"])
            beside = Database.open(f"sqlite:///{tmp_path / 'towline.db'}", read_only=True)
            assert (await audit_database(beside)).runs == 1
            with pytest.raises(PermissionError):
                await beside.write(lose_a_step)
            await rig.start(["a"])
            assert (await audit_database(beside)).runs == 2
            await beside.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("broken", "arguments", "code", "said"),
    [
        (False, [], 0, "1 run: all invariants hold\n"),
        (False, ["--output", "json"], 0, {"runs": 1, "complete": True, "breaches": []}),
        (True, [], 1, "I21 run {id}: nodes without a step: expected [], found ['a']\n1 breach in 1 run\n"),
        (
            True,
            ["--output", "json"],
            1,
            {
                "runs": 1,
                "complete": True,
                "breaches": [
                    {
                        "invariant": "I21",
                        "runId": "{id}",
                        "nodeId": "",
                        "what": "nodes without a step",
                        "expected": "[]",
                        "found": "['a']",
                    }
                ],
            },
        ),
    ],
    ids=["in order", "in order, json", "broken", "broken, json"],
)
def test_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: bool,
    arguments: list[str],
    code: int,
    said: object,
) -> None:
    async def prepare() -> str:
        async with control_plane(tmp_path) as rig:
            run = await rig.start(["a"])
        database = Database.open(f"sqlite:///{tmp_path / 'towline.db'}")
        if broken:
            await database.write(lose_a_step)
        await database.close()
        return run.id

    run_id = asyncio.run(prepare())
    monkeypatch.setenv("TOWLINE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["audit", *arguments])
    assert command.main() == code
    output = capsys.readouterr().out.replace(run_id, "{id}")
    assert (json.loads(output) if arguments else output) == said


def test_what_cannot_be_audited_is_no_breach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOWLINE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["audit"])
    assert command.main() == 6
    (tmp_path / "towline.db").touch()
    assert command.main() == 6
    said = capsys.readouterr()
    assert [line.partition("database: ")[0] for line in said.err.splitlines()] == ["error: cannot audit the "] * 2
    assert not said.out
