"""ScheduleService: what people set, what they are told, and runs out of turn."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from schedule_calls import call, create, get, make_due, workflow_of
from service_rig import INVALID_ARGUMENT, NOT_FOUND, Caller, Rig, refusal, serve

from towline.v1.run_pb2 import Run
from towline.v1.schedule_pb2 import Firing, Schedule
from towline_controlplane.services import schedules as service

INVALID_STATE = grpc.StatusCode.FAILED_PRECONDITION
SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
FULL: dict[str, Any] = {
    "name": "nightly", "cron": "30 2 * * mon-fri", "timeZone": "Europe/Berlin", "input": {"n": 1}, "priority": 7,
    "labels": {"team": "data"}, "overlapPolicy": "BUFFER_ONE", "catchUpWindow": "3600s", "catchUpLimit": 2,
    "jitter": "60s", "note": "for the report", "startTime": "2030-01-01T00:00:00Z", "endTime": "2031-01-01T00:00:00Z",
}  # fmt: skip


def test_a_schedule_lives(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow_id = await workflow_of(user)
        made = await create(user, workflow_id, **FULL)
        assert (made.name, made.workflow_id, made.owner_id, made.cron) == (
            "nightly", workflow_id, user.id, "30 2 * * mon-fri",
        )  # fmt: skip
        assert (made.state, made.overlap_policy) == (Schedule.ACTIVE, Schedule.BUFFER_ONE)
        assert (made.catch_up_window.seconds, made.catch_up_limit, made.jitter.seconds) == (3600, 2, 60)
        times = [each.ToJsonString() for each in made.next_times]
        assert times == [f"2030-01-{day:02}T01:30:00Z" for day in (1, 2, 3, 4, 7)]
        assert "Its next time is 2030-01-01 01:30:00 UTC" in made.explanation
        assert await get(user, made) == made
        listed = (await user.call("ScheduleService/ListSchedules")).schedules
        assert [(each.id, len(each.next_times), each.etag) for each in listed] == [(made.id, 1, made.etag)]
        paused = (await call(user, "Pause", made, note="holiday")).schedule
        assert (paused.state, paused.note, list(paused.next_times)) == (Schedule.PAUSED, "holiday", [])
        assert paused.explanation == "It is paused: holiday"
        resumed = (await call(user, "Resume", made)).schedule
        assert (resumed.state, resumed.note, resumed.next_times) == (Schedule.ACTIVE, "", made.next_times)
        await call(user, "Delete", made)
        for method in ("Get", "Delete", "Pause", "Resume", "Trigger", "Update"):
            assert (await refusal(call(user, method, made))).code == NOT_FOUND
        assert not (await user.call("ScheduleService/ListSchedules")).schedules

    serve(tmp_path, scenario)


def test_what_is_not_given_has_its_default_and_stays_when_changed(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = await create(user, await workflow_of(user), interval="900s")
        assert (made.interval.seconds, made.time_zone, made.overlap_policy) == (900, "UTC", Schedule.SKIP)
        assert (made.catch_up_window.seconds, made.catch_up_limit) == (86_400, 10)
        assert all(time.seconds % 900 == 0 for time in made.next_times)
        same = (await call(user, "Update", made)).schedule
        assert same.etag != made.etag
        for each in (made, same):
            each.ClearField("etag")
            each.ClearField("update_time")
        assert same == made
        changed = (
            await call(user, "Update", made, cron="@daily", labels={"a": "b"}, overlapPolicy="ALLOW_ALL", input=[1])
        ).schedule
        assert (changed.cron, changed.HasField("interval"), dict(changed.labels)) == ("@daily", False, {"a": "b"})
        assert changed.input.list_value.values[0].number_value == 1
        assert all(time.seconds % 86_400 == 0 for time in changed.next_times)
        bounded = (await call(user, "Update", made, startTime="2040-01-01T00:00:00Z", labels={})).schedule
        assert bounded.next_times[0].ToJsonString() == "2040-01-01T00:00:00Z"
        assert not bounded.labels
        unbounded = (await call(user, "Update", made, startTime="1970-01-01T00:00:00Z")).schedule
        assert (unbounded.HasField("start_time"), unbounded.next_times) == (False, changed.next_times)
        ended = (await call(user, "Update", made, endTime="2001-01-01T00:00:00Z")).schedule
        assert (ended.state, ended.explanation) == (Schedule.ENDED, "It has ended: no time is left.")

    serve(tmp_path, scenario)


def test_a_change_is_made_only_to_what_was_seen(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = await create(user, await workflow_of(user))
        newer = (await call(user, "Update", made, etag=made.etag, name="x")).schedule
        for method in ("Update", "Delete"):
            refused = await refusal(call(user, method, made, etag=made.etag))
            assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        await make_due(rig, made)
        assert (await get(user, made)).etag == newer.etag
        await call(user, "Delete", made, etag=newer.etag)

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("fields", "field", "wrong"),
    [
        ({"name": ""}, "name", "1 to 200"),
        ({"note": "x" * 1_001}, "note", "at most 1,000"),
        ({"cron": "* * * *"}, "cron", "has 4 fields"),
        ({"cron": "0 0 30 2 *"}, "cron", "never comes"),
        ({"cron": "@daily", "interval": "60s"}, "cron", "cannot be given with interval"),
        ({"interval": "0s"}, "interval", "must be 1 to 31622400 seconds"),
        ({"interval": "-5s"}, "interval", "must be 1 to"),
        ({"interval": "315576000000s"}, "interval", "must be 1 to"),
        ({"interval": "1.5s"}, "interval", "whole seconds"),
        ({"interval": "1.0000001s"}, "interval", "whole seconds"),
        ({"cron": "@daily", "timeZone": "Mars/Olympus"}, "timeZone", "IANA"),
        ({"cron": "@daily", "timeZone": "../../etc/passwd"}, "timeZone", "IANA"),
        ({"cron": "@daily", "timeZone": "a\u0000b"}, "timeZone", "IANA"),
        ({"priority": 101}, "priority", "-100 to 100"),
        ({"labels": {"": "x"}}, "labels.", "1 to"),
        ({"overlapPolicy": 9}, "overlapPolicy", "unknown value 9"),
        ({"catchUpWindow": "59s"}, "catchUpWindow", "must be 60 to"),
        ({"catchUpLimit": 101}, "catchUpLimit", "1 to 100"),
        ({"catchUpLimit": -1}, "catchUpLimit", "1 to 100"),
        ({"jitter": "86401s"}, "jitter", "must be 0 to 86400"),
        ({"startTime": "2030-01-02T00:00:00Z", "endTime": "2030-01-01T00:00:00Z"}, "endTime", "before startTime"),
        ({"startTime": "1960-01-01T00:00:00Z"}, "startTime", "no time of this age"),
        ({"startTime": "9999-01-01T00:00:00Z"}, "startTime", "no time of this age"),
        ({"endTime": "2001-01-01T00:00:00Z"}, "endTime", "no time comes before it"),
        ({"input": {"s": "x" * (1 << 20)}}, "input", "larger than 1 MiB"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, fields: dict[str, Any], field: str, wrong: str) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow_id = await workflow_of(user)
        refused = await refusal(create(user, workflow_id, **fields))
        assert refused.code == INVALID_ARGUMENT
        assert list(refused.violations) == [field]
        assert wrong in refused.violations[field]
        assert not (await user.call("ScheduleService/ListSchedules")).schedules

    serve(tmp_path, scenario)


def test_neither_expression_nor_interval_is_refused_and_so_is_what_does_not_fit_the_workflow(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow_id, other_id = await workflow_of(user, inputSchema=SCHEMA), await workflow_of(user)
        bare = {"name": "s", "workflowId": workflow_id}
        refused = await refusal(user.call("ScheduleService/CreateSchedule", **bare))
        assert refused.violations == {"cron": "is required, or interval"}
        assert list((await refusal(create(user, workflow_id, input={}))).violations) == ["input.n"]
        made = await create(user, workflow_id, input={"n": 1})
        refused = await refusal(call(user, "Update", made, input={"n": "one"}))
        assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, ["input.n"])
        refused = await refusal(call(user, "Update", made, labels={"a": 1}))
        assert refused.violations == {"labels.a": "must be a text"}
        refused = await refusal(call(user, "Update", made, cron="@daily", interval="60s"))
        assert list(refused.violations) == ["interval"]
        [version] = (await user.call("WorkflowService/ListWorkflowVersions", workflowId=other_id)).versions
        assert (await refusal(call(user, "Update", made, versionId=version.id))).code == NOT_FOUND
        assert (await refusal(create(user, other_id, versionId="nothing"))).code == NOT_FOUND
        assert (await create(user, other_id, versionId=version.id)).version_id == version.id

    serve(tmp_path, scenario)


def test_its_runs_are_its_owners_with_the_version_of_the_moment(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        template = {"id": "a", "type": "SHELL", "config": {"command": "echo ${{ run.scheduledTime }}"}}
        made = await create(user, await workflow_of(user), overlapPolicy="ALLOW_ALL", labels={"team": "data"})
        await make_due(rig, made)
        await user.call("WorkflowService/UpdateWorkflow", workflowId=made.workflow_id, dag={"nodes": [template]})
        await make_due(rig, made)
        newest, oldest = (await get(user, made)).recent
        assert (newest.outcome, newest.origin, newest.run_state) == (Firing.STARTED, Firing.TIMETABLE, Run.PENDING)
        run = (await user.call("RunService/GetRun", runId=newest.run_id)).run
        first = (await user.call("RunService/GetRun", runId=oldest.run_id)).run
        assert (run.owner_id, run.schedule_id, dict(run.labels)) == (user.id, made.id, {"team": "data"})
        assert run.scheduled_time == newest.scheduled_time
        assert run.version_id != first.version_id
        agent = await rig.agent()
        shown = [offer.step.config for offer in await agent.pull() if offer.step.run_id == run.id]
        assert shown == [f'{{"command":"echo {run.scheduled_time.ToJsonString()}"}}']

    serve(tmp_path, scenario)


def test_it_says_why_nothing_runs(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow_id = await workflow_of(user)
        skipping, buffering = [await create(user, workflow_id, overlapPolicy=each) for each in ("SKIP", "BUFFER_ONE")]
        for schedule in (skipping, buffering, skipping, buffering):
            await make_due(rig, schedule)
        shown = await get(user, skipping)
        assert [each.outcome for each in shown.recent] == [Firing.SKIPPED, Firing.STARTED]
        assert f"was skipped: run {shown.recent[1].run_id} was open." in shown.explanation
        shown = await get(user, buffering)
        assert f"waits for run {shown.recent[1].run_id} to end." in shown.explanation
        assert shown.HasField("buffered_time")
        paused = (await call(user, "Pause", buffering)).schedule
        assert (paused.recent[0].outcome, paused.HasField("buffered_time")) == (Firing.SKIPPED, False)
        await user.call("WorkflowService/UpdateWorkflow", workflowId=workflow_id, inputSchema=SCHEMA)
        failing = await get(user, await create_then(user, rig, workflow_id))
        assert (failing.failures, failing.error.code) == (1, "INVALID_ARGUMENT")
        assert "For the last time no run could be started: input.n: " in failing.explanation
        await user.call("WorkflowService/DeleteWorkflow", workflowId=workflow_id)
        await make_due(rig, failing)
        gone = await get(user, failing)
        assert (gone.state, gone.recent[0].outcome) == (Schedule.PAUSED, Firing.FAILED)
        assert f"there is no workflow {workflow_id}" in gone.explanation
        resumed = (await call(user, "Resume", gone)).schedule
        assert (resumed.state, resumed.failures, resumed.HasField("error")) == (Schedule.ACTIVE, 0, False)

    async def create_then(user: Caller, rig: Rig, workflow_id: str) -> Schedule:
        made = await create(user, workflow_id, input={"n": 1})
        await user.call(
            "WorkflowService/UpdateWorkflow",
            workflowId=workflow_id,
            inputSchema={**SCHEMA, "properties": {"n": {"type": "string"}}},
        )
        await make_due(rig, made)
        return made

    serve(tmp_path, scenario)


def test_a_disabled_owner_starts_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, admin = await rig.user("ada"), await rig.admin()
        made = await create(user, await workflow_of(user))
        await admin.call("UserService/DisableUser", userId=user.id)
        await make_due(rig, made)
        shown = await get(admin, made)
        assert (shown.recent[0].outcome, shown.error.code) == (Firing.FAILED, "OWNER_DISABLED")
        refused = await refusal(call(admin, "Trigger", made))
        assert (refused.code, refused.message) == (INVALID_STATE, "no run can be started: its owner is disabled")

    serve(tmp_path, scenario)


def test_lists_come_page_by_page_and_nobody_has_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_SCHEDULES", 3)

    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow_id = await workflow_of(user)
        ids = [(await create(user, workflow_id)).id for _ in range(3)]
        refused = await refusal(create(user, workflow_id))
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        first = await user.call("ScheduleService/ListSchedules", pageSize=2)
        rest = await user.call("ScheduleService/ListSchedules", pageToken=first.next_page_token)
        assert [each.id for each in (*first.schedules, *rest.schedules)] == ids[::-1]
        assert rest.next_page_token == ""
        for fields in ({"pageSize": -1}, {"pageToken": "x"}):
            assert (await refusal(user.call("ScheduleService/ListSchedules", **fields))).code == INVALID_ARGUMENT

    serve(tmp_path, scenario)
