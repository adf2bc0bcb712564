"""`towline schedule …`: what each command sends, what it prints, and what it refuses before it sends anything."""

import json
from typing import Any

import pytest
from cli_fakes import FakeControlPlane, Terminal
from google.protobuf.json_format import MessageToDict, ParseDict

from towline.v1 import schedule_service_pb2 as pb
from towline.v1.schedule_pb2 import Schedule

SET = (
    "--cron @daily --time-zone Europe/Berlin --version v1 --priority 3 --label a=b --label c=d=e --overlap buffer_one"
    " --catch-up-window 1h30m --catch-up-limit 2 --jitter 45s --start 2026-03-01T00:00:00+01:00 --note later"
)
SENT = {
    "cron": "@daily", "timeZone": "Europe/Berlin", "versionId": "v1", "priority": 3, "labels": {"a": "b", "c": "d=e"},
    "overlapPolicy": "BUFFER_ONE", "catchUpWindow": "5400s", "catchUpLimit": 2, "jitter": "45s",
    "startTime": "2026-02-28T23:00:00Z", "note": "later",
}  # fmt: skip
SPAN = {"startTime": "2026-03-01T00:00:00Z", "endTime": "2026-03-02T00:00:00Z"}
COMMANDS: list[tuple[str, str, dict[str, Any]]] = [
    (
        f'schedule create nightly w1 {SET} --input {{"n":[1]}} --paused',
        "CreateSchedule",
        {"name": "nightly", "workflowId": "w1", **SENT, "input": {"n": [1.0]}, "paused": True},
    ),
    ("schedule create s w1 --every 15m", "CreateSchedule", {"name": "s", "workflowId": "w1", "interval": "900s"}),
    (
        f"schedule update s1 {SET} --name x --etag e",
        "UpdateSchedule",
        {"scheduleId": "s1", **SENT, "name": "x", "etag": "e"},
    ),
    ("schedule update s1 --input null", "UpdateSchedule", {"scheduleId": "s1", "input": None}),
    ("schedule update s1 --end none", "UpdateSchedule", {"scheduleId": "s1", "endTime": "1970-01-01T00:00:00Z"}),
    ("schedule update s1 --version=", "UpdateSchedule", {"scheduleId": "s1", "versionId": ""}),
    ("schedule list --page-size 3 --page-token t", "ListSchedules", {"pageSize": 3, "pageToken": "t"}),
    ("schedule get s1", "GetSchedule", {"scheduleId": "s1"}),
    ("schedule pause s1 --note holiday", "PauseSchedule", {"scheduleId": "s1", "note": "holiday"}),
    ("schedule resume s1", "ResumeSchedule", {"scheduleId": "s1"}),
    (
        "schedule backfill s1 --from 2026-03-01T00:00:00Z --to 2026-03-02T01:00:00+01:00",
        "BackfillSchedule",
        {"scheduleId": "s1", **SPAN},
    ),
    ("schedule delete s1 --etag e", "DeleteSchedule", {"scheduleId": "s1", "etag": "e"}),
    (
        "schedule preview --every 1d --count 9 --start 2026-03-01T00:00:00Z --end 2026-03-02T00:00:00Z",
        "PreviewSchedule",
        {"interval": "86400s", "count": 9, **SPAN},
    ),
]


@pytest.mark.parametrize(("command", "method", "sent"), COMMANDS, ids=[command[:40] for command, *_ in COMMANDS])
def test_a_command_sends_its_request(
    command: str, method: str, sent: dict[str, Any], towline: Terminal, control_plane: FakeControlPlane
) -> None:
    result = towline(*command.split())
    assert (result.code, result.stderr) == (0, "")
    assert MessageToDict(control_plane.request(method)) == sent


def test_a_trigger_carries_a_key_of_its_own(towline: Terminal, control_plane: FakeControlPlane) -> None:
    for _ in range(2):
        assert towline("schedule", "trigger", "s1").code == 0
    first, second = (call.request for call in control_plane.calls)
    assert first.schedule_id == second.schedule_id == "s1"
    assert len({first.request_id, second.request_id, ""}) == 3


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ("create s w1 --every 15", "--every 15 is no duration"),
        ("create s w1 --every m15", "--every m15 is no duration"),
        ("create s w1 --every 1.5h", "is no duration"),
        ("create s w1 --cron @daily --jitter= ", "--jitter  is no duration"),
        ("create s w1 --cron @daily --start 2026-03-01", "is no time with its zone"),
        ("create s w1 --cron @daily --start soon", "is no time with its zone"),
        ("create s w1 --cron @daily --overlap wait", "is none of SKIP, BUFFER_ONE, ALLOW_ALL, CANCEL_OTHER"),
        ("create s w1 --cron @daily --label a", "--label a is not of the form KEY=VALUE"),
        ("create s w1 --cron @daily --input {", "--input"),
        ("backfill s1 --from none --to none", "--from none is no time"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    arguments: str, wrong: str, towline: Terminal, control_plane: FakeControlPlane
) -> None:
    result = towline("schedule", *arguments.strip().split())
    assert result.code == 2 or result.code == 1
    assert wrong in result.stderr
    assert control_plane.calls == []


def test_schedules_are_shown_for_people_and_programs(towline: Terminal, control_plane: FakeControlPlane) -> None:
    document = {
        "id": "s1", "name": "nightly", "workflowId": "w1", "cron": "@daily", "timeZone": "UTC", "state": "ACTIVE",
        "nextTimes": ["2026-03-01T00:00:00Z"], "explanation": "Its next time is near.",
        "recent": [
            {"scheduledTime": "2026-02-28T00:00:00Z", "outcome": "SKIPPED", "reason": "run r1 was open"},
            {"scheduledTime": "2026-02-27T00:00:00Z", "outcome": "STARTED", "origin": "TRIGGER", "runState": "FAILED"},
        ],
    }  # fmt: skip
    schedule = ParseDict(document, Schedule())
    other = Schedule(id="s2", name="often", state=Schedule.PAUSED)
    other.interval.FromSeconds(900)
    control_plane.answers["ListSchedules"] = lambda _: pb.ListSchedulesResponse(schedules=[schedule, other])
    control_plane.answers["GetSchedule"] = lambda _: pb.GetScheduleResponse(schedule=schedule)
    table = towline("schedule", "list").stdout
    assert "@daily (UTC)" in table
    assert "every 900 s" in table
    shown = towline("schedule", "get", "s1").stdout
    for word in ("Its next time is near.", "SKIPPED", "run r1 was open", "TRIGGER", "FAILED"):
        assert word in shown
    printed = json.loads(towline("schedule", "get", "s1", "--output", "json").stdout)
    assert [each["outcome"] for each in printed["recent"]] == ["SKIPPED", "STARTED"]
    assert towline("schedule", "list", "-o", "id").stdout.split() == ["s1", "s2"]


def test_a_preview_is_a_line_for_each_time(towline: Terminal, control_plane: FakeControlPlane) -> None:
    times = ["2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"]
    answer = ParseDict({"times": times}, pb.PreviewScheduleResponse())
    control_plane.answers["PreviewSchedule"] = lambda _: answer
    assert towline("schedule", "preview", "--cron", "@daily").stdout.split() == times
    assert json.loads(towline("schedule", "preview", "--cron", "@daily", "-o", "json").stdout) == {"times": times}
