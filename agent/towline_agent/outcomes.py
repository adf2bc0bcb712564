"""What the end of an attempt's processes means: the outcome, whether a retry may help, and why, with evidence.

Pure. One function per way to end, chosen by a table. A signal that a program raises by its own fault (SIGSEGV) is
PERMANENT, one that came from outside (SIGKILL) TRANSIENT. No failure is ever a bare number.
"""

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, cast

from towline.v1.agent_service_pb2 import AttemptResult, Lease
from towline.v1.run_pb2 import Failure, Usage
from towline_agent import json_document
from towline_agent.execution import EndReason, Exit
from towline_agent.lifecycle import Event

TRANSIENT, PERMANENT = Failure.TRANSIENT, Failure.PERMANENT
EXIT_TRANSIENT = 75
MIB = 1024 * 1024

_MAX_TEXT = 4096
_MAX_RETRY_AFTER_MS = 24 * 3600 * 1000
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_CLASSES = MappingProxyType({"TRANSIENT": TRANSIENT, "PERMANENT": PERMANENT})
_OWN_FAULT = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP"})
_SHELL_CODES = MappingProxyType({126: "a command could not be executed", 127: "a command was not found"})


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about an attempt beside how its processes ended."""

    timeout_seconds: float
    memory_bytes: int
    output_bytes: int
    stopped_by: Event | None = None
    """CANCEL, SHUTDOWN or FENCE, whichever came first."""
    stop_reason: str = ""
    last_errors: str = ""
    """The last lines of standard error."""


def decide(lease: Lease, end: Exit, evidence: Evidence) -> AttemptResult:
    """Returns the whole result to report, except the length of the log."""
    result = _BY_REASON[end.reason](end, evidence)
    if evidence.stopped_by is not None and result.outcome != AttemptResult.SUCCEEDED:
        result = _stopped(end, evidence)
    result.lease.CopyFrom(lease)
    result.usage.CopyFrom(Usage(peak_memory_bytes=end.peak_memory_bytes, cpu_seconds=end.cpu_seconds))
    result.elapsed.FromTimedelta(timedelta(seconds=end.elapsed_seconds))
    return result


def failed(failure: Failure) -> AttemptResult:
    """A FAILED result that still needs its lease."""
    return AttemptResult(outcome=AttemptResult.FAILED, failure=failure)


def invalid_output(message: str) -> Failure:
    """A failure for a result that cannot be recorded."""
    return _failure(PERMANENT, "INVALID_OUTPUT", "The result of the plugin cannot be recorded", message)


def bundle_unavailable(kind: Failure.Class, reason: str) -> Failure:
    """A failure of a plugin whose files cannot be had."""
    return _failure(kind, "BUNDLE_UNAVAILABLE", "The bundle of the plugin is not available", reason)


def not_prepared(error: Exception) -> Failure:
    """A failure of this agent's own machine, such as a full disk: elsewhere the attempt may work."""
    return _failure(TRANSIENT, "SPAWN_FAILED", "The agent could not prepare the attempt", str(error))


def sandbox_unavailable(reason: str) -> Failure:
    """A failure of an agent that cannot confine the attempt as it must: another one may."""
    return _failure(TRANSIENT, "SANDBOX_UNAVAILABLE", "The agent cannot confine the plugin as it must be", reason)


def _exited(end: Exit, evidence: Evidence) -> AttemptResult:
    return _succeeded(end, evidence) if end.exit_code == 0 else _exited_with_error(end, evidence)


def _succeeded(end: Exit, evidence: Evidence) -> AttemptResult:
    if end.result_truncated:
        message = "The result of the plugin is too large"
        cause = f"more than the {_size(evidence.output_bytes)} allowed"
        return failed(_failure(PERMANENT, "OUTPUT_TOO_LARGE", message, cause))
    output = end.result.strip() or b"null"
    try:
        json_document.parse(output)
    except json_document.InvalidDocument as error:
        return failed(invalid_output(str(error)))
    return AttemptResult(outcome=AttemptResult.SUCCEEDED, output_json=output)


def _exited_with_error(end: Exit, evidence: Evidence) -> AttemptResult:
    code = end.exit_code or 0
    default_class = TRANSIENT if code == EXIT_TRANSIENT else PERMANENT
    told = _told_error(end)
    if told is not None:
        return _told_failure(told, default_class, _last_errors(evidence) or _explain_code(code))
    cause = _with_last_errors(_explain_code(code), evidence)
    message = (
        f"The plugin asked for a retry (exit code {code})" if code == EXIT_TRANSIENT else f"Ended with exit code {code}"
    )
    return failed(_failure(default_class, "EXIT_CODE", message, cause))


def _explain_code(code: int) -> str:
    if code in _SHELL_CODES:
        return f"exit code {code}, by which shells say that {_SHELL_CODES[code]}"
    if 128 < code < 128 + signal.NSIG:
        return f"exit code {code}, by which shells say that {_signal_name(code - 128)} killed a command"
    return f"exit code {code}"


def _told_error(end: Exit) -> dict[str, Any] | None:
    if end.result_truncated or not end.result:
        return None
    try:
        document = json_document.parse(end.result)
    except json_document.InvalidDocument:
        return None
    error: Any = cast("dict[str, Any]", document).get("error") if isinstance(document, dict) else None
    return cast("dict[str, Any]", error) if isinstance(error, dict) else None


def _told_failure(told: dict[str, Any], default_class: Failure.Class, cause: str) -> AttemptResult:
    code = told.get("code")
    failure = _failure(
        _CLASSES.get(str(told.get("class")), default_class),
        code if isinstance(code, str) and _CODE.fullmatch(code) else "PLUGIN_ERROR",
        str(told.get("message") or "The plugin failed without a message"),
        cause,
    )
    result = failed(failure)
    wait_ms = told.get("retryAfterMs")
    if isinstance(wait_ms, int | float) and wait_ms > 0:
        result.retry_after.FromTimedelta(timedelta(milliseconds=min(wait_ms, _MAX_RETRY_AFTER_MS)))
    return result


def _signaled(end: Exit, evidence: Evidence) -> AttemptResult:
    name = _signal_name(end.signal or 0)
    peak = f"peak memory {_size(end.peak_memory_bytes)} of {_size(evidence.memory_bytes)} allowed"
    if name in _OWN_FAULT:
        return failed(_failure(PERMANENT, "SIGNAL", f"Crashed ({name})", _with_last_errors(peak, evidence)))
    guess = "perhaps the kernel was out of memory; " if name == "SIGKILL" else ""
    cause = _with_last_errors(f"{name} was not sent by the agent; {guess}{peak}", evidence)
    return failed(_failure(TRANSIENT, "SIGNAL", f"Killed from outside by {name}", cause))


def _timed_out(end: Exit, evidence: Evidence) -> AttemptResult:
    cause = f"ran for {end.elapsed_seconds:.1f} s of {evidence.timeout_seconds:g} s allowed"
    failure = _failure(
        TRANSIENT,
        "TIMEOUT",
        f"Did not end within {evidence.timeout_seconds:g} s",
        _with_last_errors(cause, evidence),
    )
    return AttemptResult(outcome=AttemptResult.TIMED_OUT, failure=failure)


def _over_memory(end: Exit, evidence: Evidence) -> AttemptResult:
    cause = f"peak {_size(end.peak_memory_bytes)} of {_size(evidence.memory_bytes)} allowed"
    return failed(_failure(PERMANENT, "MEMORY_LIMIT", "Used more memory than allowed", cause))


def _stopped(end: Exit, evidence: Evidence) -> AttemptResult:
    ran = f"ran for {end.elapsed_seconds:.1f} s"
    match evidence.stopped_by:
        case Event.SHUTDOWN:
            return _lost("The agent was shut down before the attempt ended", ran)
        case Event.FENCE:
            return _lost("The agent could not reach the control plane and gave the attempt up", ran)
        case _:
            cause = f"{ran}; {evidence.stop_reason or 'asked for by the control plane'}"
            failure = _failure(PERMANENT, "CANCELLED", "Cancelled", cause)
            return AttemptResult(outcome=AttemptResult.CANCELLED, failure=failure)


def _not_spawned(end: Exit, evidence: Evidence) -> AttemptResult:
    cause = _with_last_errors(end.message, evidence)
    return failed(_failure(PERMANENT, "SPAWN_FAILED", "The plugin could not be started", cause))


def _not_confined(end: Exit, _evidence: Evidence) -> AttemptResult:
    return failed(sandbox_unavailable(end.message))


def _supervisor_lost(end: Exit, evidence: Evidence) -> AttemptResult:
    cause = _with_last_errors(end.message, evidence)
    return _lost("The agent lost control of the attempt", cause)


def _lost(message: str, cause: str) -> AttemptResult:
    return AttemptResult(outcome=AttemptResult.LOST, failure=_failure(TRANSIENT, "AGENT_LOST", message, cause))


_BY_REASON: MappingProxyType[EndReason, Callable[[Exit, Evidence], AttemptResult]] = MappingProxyType(
    {
        EndReason.EXITED: _exited,
        EndReason.SIGNALED: _signaled,
        EndReason.TIMEOUT: _timed_out,
        EndReason.MEMORY_LIMIT: _over_memory,
        EndReason.STOPPED: _stopped,
        EndReason.SPAWN_FAILED: _not_spawned,
        EndReason.SANDBOX_FAILED: _not_confined,
        EndReason.SUPERVISOR_LOST: _supervisor_lost,
    }
)


def _failure(kind: Failure.Class, code: str, message: str, cause: str) -> Failure:
    failure = Failure(code=code, message=message[:_MAX_TEXT], cause=cause[:_MAX_TEXT])
    setattr(failure, "class", kind)  # the field's name is a keyword of Python
    return failure


def _with_last_errors(cause: str, evidence: Evidence) -> str:
    return f"{cause}; {_last_errors(evidence)}" if evidence.last_errors else cause


def _last_errors(evidence: Evidence) -> str:
    return f"last lines of stderr: {evidence.last_errors}" if evidence.last_errors else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _size(count: int) -> str:
    return f"{count / MIB:.0f} MiB" if count >= MIB else f"{count} bytes"
