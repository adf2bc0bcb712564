"""Runs of schedules out of turn, and times without a schedule."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from schedule_calls import call, create, get, loop_of, workflow_of
from service_rig import INVALID_ARGUMENT, Rig, refusal, serve

from towline.v1.schedule_pb2 import Firing
from towline_controlplane.frozen import replace
from towline_controlplane.store import schedules

INVALID_STATE = grpc.StatusCode.FAILED_PRECONDITION


def test_a_trigger_starts_a_run_once_for_its_key_paused_or_not(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, admin = await rig.user("ada"), await rig.admin()
        made = await create(user, await workflow_of(user), paused=True, input={"text": "x"})
        run = (await call(user, "Trigger", made, requestId="k")).run
        assert (run.schedule_id, run.owner_id) == (made.id, user.id)
        assert (await call(user, "Trigger", made, requestId="k")).run.id == run.id
        others = [
            (await call(caller, "Trigger", made, **key)).run.id
            for caller, key in ((admin, {"requestId": "k"}), (user, {"requestId": "l"}), (user, {}), (user, {}))
        ]
        assert len({run.id, *others}) == 5
        recent = (await get(user, made)).recent
        assert [(each.origin, each.outcome) for each in recent] == [(Firing.TRIGGER, Firing.STARTED)] * 5
        assert (await refusal(call(user, "Trigger", made, requestId="x" * 201))).code == INVALID_ARGUMENT
        await user.call("WorkflowService/DeleteWorkflow", workflowId=made.workflow_id)
        assert (await refusal(call(user, "Trigger", made))).code == INVALID_STATE

    serve(tmp_path, scenario)


def test_a_backfill_starts_what_is_missing_in_order(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = await create(user, await workflow_of(user), cron="0 6 * * *")
        span = {"startTime": "2024-02-28T06:00:00Z", "endTime": "2024-03-02T06:00:00Z"}
        first = await call(user, "Backfill", made, **span)
        days = [each.scheduled_time.ToJsonString()[5:10] for each in first.started]
        assert (days, first.already_started) == (["02-28", "02-29", "03-01", "03-02"], 0)
        again = await call(user, "Backfill", made, **{**span, "endTime": "2024-03-03T07:00:00Z"})
        assert ([each.scheduled_time.ToJsonString()[5:10] for each in again.started], again.already_started) == (
            ["03-03"], 4,
        )  # fmt: skip
        runs = (await user.call("RunService/ListRuns")).runs
        assert len(runs) == len({run.scheduled_time.seconds for run in runs}) == 5

    async def checked(rig: Rig) -> None:
        user = await rig.user("eve")
        made = await create(user, await workflow_of(user), cron="* * * * *")
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for span, field in (
            ({}, "startTime"),
            ({"startTime": "2024-01-01T00:00:00Z"}, "endTime"),
            ({"startTime": "2024-01-02T00:00:00Z", "endTime": "2024-01-01T00:00:00Z"}, "startTime"),
            ({"startTime": "2024-01-01T00:00:00Z", "endTime": tomorrow}, "endTime"),
            ({"startTime": "2024-01-01T00:00:00Z", "endTime": "2024-01-01T01:40:00Z"}, "endTime"),
        ):
            refused = await refusal(call(user, "Backfill", made, **span))
            assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, [field])
        most = {"startTime": "2024-01-01T00:00:00Z", "endTime": "2024-01-01T00:59:59Z"}
        assert len((await call(user, "Backfill", made, **most)).started) == 60

    async def both(rig: Rig) -> None:
        await scenario(rig)
        await checked(rig)

    serve(tmp_path, both)


def test_a_backfilled_time_does_not_run_again_when_it_comes(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = await create(user, await workflow_of(user), interval="60s", overlapPolicy="ALLOW_ALL")

        def hold_up(tx: schedules.Transaction) -> int:
            row = schedules.lock_schedule(tx, made.id, None)
            assert row is not None
            time = tx.now - tx.now % 60_000_000
            schedules.save_schedule(tx, replace(row, next_time=time, due_time=time))
            return time

        time = await rig.database.write(hold_up)
        moment = datetime.fromtimestamp(time / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        filled = await call(user, "Backfill", made, startTime=moment, endTime=moment)
        assert len(filled.started) == 1
        while await loop_of(rig).tick() == 0.0:
            pass
        runs = (await user.call("RunService/ListRuns")).runs
        assert [run.id for run in runs if run.scheduled_time.seconds == time // 1_000_000] == [filled.started[0].run_id]

    serve(tmp_path, scenario)


def test_a_preview_tells_the_times_of_an_expression(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")

        async def preview(**fields: Any) -> list[str]:
            answer = await user.call("ScheduleService/PreviewSchedule", **fields)
            return [each.ToJsonString() for each in answer.times]

        start = "2026-03-28T01:30:00Z"
        assert await preview(cron="30 2 * * *", timeZone="Europe/Berlin", count=3, startTime=start) == [
            "2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z",
        ]  # fmt: skip
        assert await preview(interval="3600s", startTime=start, endTime="2026-03-28T02:30:00Z") == [
            "2026-03-28T01:30:00Z", "2026-03-28T02:30:00Z",
        ]  # fmt: skip
        assert len(await preview(cron="@hourly")) == 5
        assert len(await preview(cron="@hourly", count=1_000)) == 100
        for fields, field in (
            ({}, "cron"),
            ({"cron": "x"}, "cron"),
            ({"cron": "@daily", "count": -1}, "count"),
            ({"cron": "@daily", "timeZone": "Nowhere"}, "timeZone"),
            ({"interval": "0.5s"}, "interval"),
        ):
            assert list((await refusal(preview(**fields))).violations) == [field]

    serve(tmp_path, scenario)
