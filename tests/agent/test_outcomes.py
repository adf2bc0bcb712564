"""How the end of processes becomes a result."""

import signal
from dataclasses import replace
from typing import Any

import pytest

from towline.v1.agent_service_pb2 import AttemptResult, Lease
from towline.v1.run_pb2 import Evidence, Failure
from towline_agent.execution import EndReason, Exit, Watch
from towline_agent.lifecycle import Event
from towline_agent.outcomes import MIB, Circumstances, decide

LEASE = Lease(run_id="r", node_id="n", attempt=1, epoch=1, token="t")
AROUND = Circumstances(timeout_seconds=30, memory_bytes=512 * MIB, output_bytes=1000)
FAILED, CANCELLED, TIMED_OUT = AttemptResult.FAILED, AttemptResult.CANCELLED, AttemptResult.TIMED_OUT
T, P = Failure.TRANSIENT, Failure.PERMANENT


def exited(code: int, result: bytes = b"", **facts: Any) -> Exit:
    return Exit(EndReason.EXITED, exit_code=code, result=result, **facts)


FAILURES = [
    (exited(75), FAILED, T, "EXIT_CODE", "asked for a retry", "exit code 75"),
    (exited(3), FAILED, P, "EXIT_CODE", "exit code 3", "exit code 3"),
    (exited(127), FAILED, P, "EXIT_CODE", "127", "a command was not found"),
    (exited(137), FAILED, P, "EXIT_CODE", "137", "SIGKILL killed a command"),
    (exited(1, b"not json"), FAILED, P, "EXIT_CODE", "exit code 1", ""),
    (
        exited(1, b'{"error": {"class": "TRANSIENT", "code": "BUSY", "message": "later"}}'),
        FAILED,
        T,
        "BUSY",
        "later",
        "",
    ),
    (exited(75, b'{"error": {"class": "PERMANENT", "code": "NO", "message": "never"}}'), FAILED, P, "NO", "never", ""),
    (exited(75, b'{"error": {"message": "hm"}}'), FAILED, T, "PLUGIN_ERROR", "hm", ""),
    (exited(1, b'{"error": {"code": "bad code"}}'), FAILED, P, "PLUGIN_ERROR", "without a message", "exit code 1"),
    (exited(1, b'{"error": "text"}'), FAILED, P, "EXIT_CODE", "exit code 1", ""),
    (exited(0, b"NaN"), FAILED, P, "INVALID_OUTPUT", "", "NaN"),
    (exited(0, b"\xff"), FAILED, P, "INVALID_OUTPUT", "", "UTF-8"),
    (exited(0, b"[" * 70 + b"]" * 70), FAILED, P, "INVALID_OUTPUT", "", "deeper than 31"),
    (exited(0, b'{"a": '), FAILED, P, "INVALID_OUTPUT", "", "Expecting value"),
    (exited(0, b"12", result_truncated=True), FAILED, P, "OUTPUT_TOO_LARGE", "too large", "1000 bytes"),
    (Exit(EndReason.SIGNALED, signal=signal.SIGKILL), FAILED, T, "SIGNAL", "SIGKILL", "out of memory"),
    (Exit(EndReason.SIGNALED, signal=signal.SIGTERM), FAILED, T, "SIGNAL", "SIGTERM", "not sent by the agent"),
    (Exit(EndReason.SIGNALED, signal=signal.SIGSEGV), FAILED, P, "SIGNAL", "Crashed (SIGSEGV)", ""),
    (Exit(EndReason.SIGNALED, signal=250), FAILED, T, "SIGNAL", "signal 250", ""),
    (Exit(EndReason.TIMEOUT, elapsed_seconds=30.04), TIMED_OUT, T, "TIMEOUT", "within 30 s", "30.0 s of 30 s"),
    (
        Exit(EndReason.MEMORY_LIMIT, peak_memory_bytes=612 * MIB),
        FAILED,
        P,
        "MEMORY_LIMIT",
        "more memory",
        "peak 612 MiB of 512 MiB allowed",
    ),
    (
        Exit(EndReason.SPAWN_FAILED, message="no such file"),
        FAILED,
        P,
        "SPAWN_FAILED",
        "could not be started",
        "no such file",
    ),
    (Exit(EndReason.SUPERVISOR_LOST, message="gone"), AttemptResult.LOST, T, "AGENT_LOST", "lost control", "gone"),
    (Exit(EndReason.STOPPED), CANCELLED, P, "CANCELLED", "Cancelled", ""),
]


@pytest.mark.parametrize(("end", "outcome", "kind", "code", "message", "cause"), FAILURES)
def test_failures_say_what_happened_and_why(
    end: Exit, outcome: int, kind: int, code: str, message: str, cause: str
) -> None:
    result = decide(LEASE, end, AROUND)
    assert (result.outcome, getattr(result.failure, "class"), result.failure.code) == (outcome, kind, code)
    assert message in result.failure.message
    assert cause in result.failure.cause
    assert result.failure.message
    assert result.failure.cause
    assert result.lease == LEASE
    assert result.output_json == b""


def killed(reason: EndReason, number: signal.Signals, kills_around: int, *, by_kernel: bool = False) -> Exit:
    watch = Watch(kills_around=kills_around, by_kernel=by_kernel)
    return Exit(reason, signal=number, watch=watch, peak_memory_bytes=9 * MIB)


SIGKILL, SIGTERM, SIGSEGV = signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV
KILLS = [
    (killed(EndReason.SIGNALED, SIGKILL, 1), "KERNEL_OOM", Evidence.KERNEL),
    (killed(EndReason.SIGNALED, SIGKILL, 7), "KERNEL_OOM", Evidence.KERNEL),
    (killed(EndReason.SIGNALED, SIGKILL, 0), "SIGNAL", Evidence.OUTSIDE),
    (killed(EndReason.SIGNALED, SIGKILL, 1, by_kernel=True), "SIGNAL", Evidence.OUTSIDE),
    (killed(EndReason.SIGNALED, SIGTERM, 1), "SIGNAL", Evidence.OUTSIDE),
    (killed(EndReason.SIGNALED, SIGSEGV, 1), "SIGNAL", Evidence.ITSELF),
    (killed(EndReason.TIMEOUT, SIGKILL, 1), "TIMEOUT", Evidence.AGENT),
    (killed(EndReason.MEMORY_LIMIT, SIGKILL, 1), "MEMORY_LIMIT", Evidence.AGENT),
]


@pytest.mark.parametrize(("end", "code", "sender"), KILLS)
def test_the_kernel_is_named_where_it_killed_for_memory_and_nothing_else_explains_the_end(
    end: Exit, code: str, sender: "Evidence.Sender"
) -> None:
    result = decide(LEASE, end, AROUND)
    assert (result.failure.code, result.evidence.sender) == (code, sender)
    if code == "KERNEL_OOM":
        assert (result.evidence.cause, getattr(result.failure, "class")) == (Evidence.KERNEL_OOM, T)
        assert "peak memory 9 MiB of 512 MiB allowed" in result.failure.cause


@pytest.mark.parametrize(("written", "output"), [(b"", b"null"), (b' {"a":1.50}\n', b'{"a":1.50}'), (b"[]", b"[]")])
def test_what_a_plugin_wrote_is_the_output_byte_by_byte(written: bytes, output: bytes) -> None:
    result = decide(LEASE, exited(0, written, cpu_seconds=1.5, peak_memory_bytes=7, elapsed_seconds=2.5), AROUND)
    assert (result.outcome, result.output_json) == (AttemptResult.SUCCEEDED, output)
    assert (result.usage.cpu_seconds, result.usage.peak_memory_bytes) == (1.5, 7)
    assert result.elapsed.ToTimedelta().total_seconds() == 2.5
    assert not result.HasField("failure")


def test_a_plugin_may_say_when_to_retry() -> None:
    result = decide(LEASE, exited(75, b'{"error": {"message": "busy", "retryAfterMs": 1500}}'), AROUND)
    assert result.retry_after.ToTimedelta().total_seconds() == 1.5


STOPS = [
    (Event.CANCEL, Exit(EndReason.STOPPED), CANCELLED, "CANCELLED"),
    (Event.CANCEL, exited(143), CANCELLED, "CANCELLED"),
    (Event.CANCEL, exited(0), AttemptResult.SUCCEEDED, ""),
    (Event.SHUTDOWN, Exit(EndReason.STOPPED), AttemptResult.LOST, "AGENT_LOST"),
    (Event.SHUTDOWN, exited(0), AttemptResult.SUCCEEDED, ""),
]


@pytest.mark.parametrize(("event", "end", "outcome", "code"), STOPS)
def test_what_ended_before_the_stop_reached_it_counts(event: Event, end: Exit, outcome: int, code: str) -> None:
    stopped = Circumstances(30, 512, 1000, stopped_by=event, stop_reason="enough")
    result = decide(LEASE, end, stopped)
    assert (result.outcome, result.failure.code) == (outcome, code)


def test_texts_are_bounded_and_hold_the_last_errors() -> None:
    result = decide(LEASE, exited(2), Circumstances(30, 512, 1000, last_errors=["boom " * 5000]))
    assert "last lines of stderr: boom" in result.failure.cause
    assert len(result.failure.cause) == 4096


@pytest.mark.parametrize(
    ("words", "code"), [("head: No space left on device", "DISK_FULL"), ("dd: File too large", "FILE_LIMIT")]
)
def test_last_words_say_more_than_an_exit_code_that_a_plugin_passes_on(words: str, code: str) -> None:
    told = b'{"error": {"class": "PERMANENT", "code": "EXIT_CODE", "message": "the command exited with 1"}}'
    around = replace(AROUND, last_errors=[words])
    assert decide(LEASE, exited(1, told), around).failure.code == code
    assert decide(LEASE, exited(1, told.replace(b"EXIT_CODE", b"MINE")), around).failure.code == "MINE"
    quiet = decide(LEASE, exited(1, told), AROUND)
    assert (quiet.failure.code, quiet.failure.message) == ("EXIT_CODE", "the command exited with 1")
