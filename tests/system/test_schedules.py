"""Schedules of real processes: control planes are killed and come back, and each second is one run all the same."""

import asyncio
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE_SECONDS, Rest, installed

CONFIG = {"transform": "uppercase", "text": "${{ run.scheduledTime }}"}
DAG = {"nodes": [{"id": "tell", "type": "TEXT_TRANSFORM", "config": CONFIG}]}


@pytest.mark.timeout(300)
def test_each_second_is_one_run_while_control_planes_come_and_go(tmp_path: Path, postgres_url: str) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, replicas=2, DATABASE_URL=postgres_url) as installation:
            rest = Rest(installation.http)
            schedule = await asyncio.to_thread(every_second, rest)
            await asyncio.to_thread(times, rest, schedule, 3)
            await installation.kill("controlplane")
            before = await asyncio.to_thread(times, rest, schedule, 3)
            await installation.restart("controlplane")
            await installation.kill("controlplane-2")
            await asyncio.to_thread(times, rest, schedule, len(before) + 3)
            await installation.restart("controlplane-2")
            paused = await asyncio.to_thread(
                rest.insist, "POST", f"/schedules/{schedule}/pause", {"note": "seen enough"}
            )
            assert (paused["state"], paused["nextTimes"]) == ("PAUSED", [])
            await asyncio.to_thread(check_runs, rest, schedule)

    asyncio.run(scenario())


def every_second(rest: Rest) -> str:
    """Returns a schedule of a workflow that says for which time it runs."""
    rest.sign_in()
    workflow = rest.post("/workflows", {"name": "tell", "dag": DAG})
    made = rest.post(
        "/schedules",
        {
            "name": "every second",
            "workflowId": workflow["id"],
            "interval": "1s",
            "overlapPolicy": "ALLOW_ALL",
            "catchUpLimit": 100,
        },
    )
    assert (made["state"], len(made["nextTimes"])) == ("ACTIVE", 5), made
    return made["id"]


def times(rest: Rest, schedule: str, count: int) -> list[dict[str, Any]]:
    """Waits until runs of the schedule are there, and returns them, the oldest first."""
    gives_up_at = time.monotonic() + PATIENCE_SECONDS
    while len(found := runs(rest, schedule)) < count:
        assert time.monotonic() < gives_up_at, rest.insist("GET", f"/schedules/{schedule}")
    return found


def runs(rest: Rest, schedule: str) -> list[dict[str, Any]]:
    answer = rest.insist("GET", "/runs?pageSize=500")
    return [run for run in reversed(answer["runs"]) if run["scheduleId"] == schedule]


def check_runs(rest: Rest, schedule: str) -> None:
    """Between the first and the last each second has one run, which knows it."""
    seconds = [datetime.fromisoformat(run["scheduledTime"]) for run in runs(rest, schedule)]
    assert seconds == [seconds[0] + timedelta(seconds=number) for number in range(len(seconds))]
    shown = rest.insist("GET", f"/schedules/{schedule}")
    assert {each["outcome"] for each in shown["recent"]} == {"STARTED"}, shown
    assert shown["explanation"] == "It is paused: seen enough"
    for run in runs(rest, schedule):
        [*_, last] = rest.events(run["id"])
        assert last["type"] == "RUN_SUCCEEDED"
        output = rest.insist("GET", f"/runs/{run['id']}")["output"]
        assert output == {"tell": {"text": run["scheduledTime"]}}
