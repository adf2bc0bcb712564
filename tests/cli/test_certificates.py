"""How a death is told to people."""

from google.protobuf import json_format

from towline.v1.run_pb2 import Step
from towline_cli.certificates import attempt_lines, sparkline

MIB = 1024 * 1024


def test_sparkline() -> None:
    assert sparkline([0, 50, 100, 200], 100) == "▁▅██"
    assert sparkline([1, 2], 0) == ""


def test_attempts_are_told_one_after_the_other() -> None:
    step = Step()
    killed = {
        "number": 1,
        "state": "FAILED",
        "startTime": "2026-01-01T00:00:00Z",
        "endTime": "2026-01-01T00:00:02Z",
        "error": {"code": "MEMORY_LIMIT", "message": "Used more memory than allowed", "cause": "peak 512 MiB"},
        "evidence": {
            "cause": "MEMORY_LIMIT",
            "memoryLimitBytes": 512 * MIB,
            "peakMemoryBytes": 512 * MIB,
            "memoryEnforcement": "CGROUP",
            "samples": [
                {"offset": "0.1s", "memoryBytes": 100 * MIB, "cpuSeconds": 0.1},
                {"offset": "1.1s", "memoryBytes": 500 * MIB, "cpuSeconds": 0.9},
            ],
            "signal": 9,
            "signalName": "SIGKILL",
            "sender": "KERNEL",
            "killedProcesses": 2,
            "lastStderr": ["loading\x1b[2J"],
        },
    }
    json_format.ParseDict({"attempts": [killed, {"number": 2, "state": "SUCCEEDED"}]}, step)
    lines = list(attempt_lines(step))
    assert lines[0] == "attempt 1 FAILED, 2.00 s"
    assert lines[-1] == "attempt 2 SUCCEEDED"
    text = "\n".join(lines)
    for words in (
        "MEMORY_LIMIT: Used more memory than allowed",
        "peak 512 MiB of 512 MiB (watched by the kernel)",
        "▂█  last 1.0 s, full bar 512 MiB",
        "SIGKILL, sent by the kernel",
        "2 left behind, 0 could not be killed",
        "stderr   loading␛[2J",
    ):
        assert words in text
    assert "\x1b" not in text


def test_a_step_that_no_agent_took_is_told_like_an_attempt() -> None:
    step = json_format.ParseDict(
        {
            "state": "TIMED_OUT",
            "error": {"message": "no agent took the step within 5 s", "cause": "it was never handed out"},
            "evidence": {"cause": "QUEUE_TIMEOUT", "timeout": "QUEUE"},
        },
        Step(),
    )
    assert list(attempt_lines(step)) == [
        "then TIMED_OUT",
        "  cause    QUEUE_TIMEOUT: no agent took the step within 5 s",
        "  because  it was never handed out",
    ]
