"""What the end of an attempt's processes means: the outcome, whether a retry may help, the cause, and why.

Pure. One function per way to end, chosen by a table; what the kernel has counted comes first. A signal that a program
raises by its own fault (SIGSEGV) is PERMANENT, one that came from outside (SIGKILL) TRANSIENT. No failure is ever a
bare number.
"""

import errno
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, cast

from towline.v1.agent_service_pb2 import AttemptResult, Lease
from towline.v1.run_pb2 import Evidence, Failure, Usage
from towline_agent import certificate, json_document
from towline_agent.certificate import OF_LIMITS, OWN_FAULTS, signal_name
from towline_agent.execution import EndReason, Exit
from towline_agent.lifecycle import Event

TRANSIENT, PERMANENT = Failure.TRANSIENT, Failure.PERMANENT
EXIT_TRANSIENT = 75
MIB = 1024 * 1024

_MAX_TEXT = 4096
_LINES_IN_CAUSE = 5
_NO_ROOM = "No space was left on a disk of the agent"
_MAX_RETRY_AFTER_MS = 24 * 3600 * 1000
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_CLASSES = MappingProxyType({"TRANSIENT": TRANSIENT, "PERMANENT": PERMANENT})
_SHELL_CODES = MappingProxyType({126: "a command could not be executed", 127: "a command was not found"})
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_TOLD_CAUSES = MappingProxyType(
    {
        "DISK_FULL": Evidence.DISK_FULL,
        "FILE_LIMIT": Evidence.FILE_LIMIT,
        "INVALID_OUTPUT": Evidence.INVALID_OUTPUT,
    }
)
"""Codes by which a plugin says what it ran into; any other is an error of its own."""
_PASSED_ON = "EXIT_CODE"
"""Code of a plugin, such as SHELL, whose command has failed: it knows no more than the exit code says."""
_LAST_WORDS = (
    ("No space left on device", Evidence.DISK_FULL),
    ("Disk quota exceeded", Evidence.DISK_FULL),
    ("File size limit exceeded", Evidence.FILE_LIMIT),
    ("File too large", Evidence.FILE_LIMIT),
)
"""How programs name what the kernel answered them."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known about an attempt beside how its processes ended."""

    timeout_seconds: float
    memory_bytes: int
    output_bytes: int
    stopped_by: Event | None = None
    """CANCEL, SHUTDOWN or FENCE, whichever came first."""
    stop_reason: str = ""
    last_output: Sequence[str] = ()
    """The last lines of standard output."""
    last_errors: Sequence[str] = ()
    """The last lines of standard error."""
    cpu_seconds: float = 0.0
    processes: int = 0


def decide(lease: Lease, end: Exit, around: Circumstances) -> AttemptResult:
    """Returns the whole result to report, except the length of the log."""
    result = _BY_REASON[end.reason](end, around)
    if result.outcome != AttemptResult.SUCCEEDED:
        result = _overruled(end, around) or result
        certificate.complete(result.evidence, end, around.memory_bytes, (around.last_output, around.last_errors))
    result.lease.CopyFrom(lease)
    result.usage.CopyFrom(Usage(peak_memory_bytes=end.peak_memory_bytes, cpu_seconds=end.cpu_seconds))
    result.elapsed.FromTimedelta(timedelta(seconds=end.elapsed_seconds))
    return result


def _overruled(end: Exit, around: Circumstances) -> AttemptResult | None:
    """What says more than how the main process ended: a stop, or what the kernel has counted for the whole tree."""
    if around.stopped_by is not None:
        return _stopped(end, around)
    if end.watch.kernel_kills:
        return _over_memory(end, around)
    if end.watch.refused_processes and end.reason in (EndReason.EXITED, EndReason.SIGNALED):
        return _over_processes(end, around)
    return None


def failed(failure: Failure, cause: Evidence.Cause) -> AttemptResult:
    """A FAILED result that still needs its lease."""
    return AttemptResult(outcome=AttemptResult.FAILED, failure=failure, evidence=Evidence(cause=cause))


def unavailable(failure: Failure) -> AttemptResult:
    """The result of an attempt whose files cannot be had."""
    return failed(failure, Evidence.BUNDLE_UNAVAILABLE)


def inputs_unavailable(failure: Failure) -> AttemptResult:
    """The result of an attempt whose inputs cannot be had."""
    return failed(failure, Evidence.INPUTS_UNAVAILABLE)


def invalid_output(message: str) -> AttemptResult:
    """The result of an attempt whose output cannot be recorded."""
    return failed(
        _failure(PERMANENT, "INVALID_OUTPUT", "The result of the plugin cannot be recorded", message),
        Evidence.INVALID_OUTPUT,
    )


def bundle_unavailable(kind: Failure.Class, reason: str) -> Failure:
    """A failure of a plugin whose files cannot be had."""
    return _failure(kind, "BUNDLE_UNAVAILABLE", "The bundle of the plugin is not available", reason)


def environment_unavailable(kind: Failure.Class, reason: str) -> Failure:
    """A failure of a plugin whose packages cannot be installed."""
    message = "The environment of the plugin could not be built from its lock"
    return _failure(kind, "ENVIRONMENT_UNAVAILABLE", message, reason)


def not_prepared(error: Exception) -> AttemptResult:
    """The result where this agent's own machine failed, as with a full disk: elsewhere the attempt may work."""
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return failed(_failure(TRANSIENT, "DISK_FULL", _NO_ROOM, str(error)), Evidence.DISK_FULL)
    cause = Evidence.SPAWN_FAILED if isinstance(error, OSError) else Evidence.INTERNAL
    return failed(_failure(TRANSIENT, "SPAWN_FAILED", "The agent could not prepare the attempt", str(error)), cause)


def sandbox_unavailable(reason: str) -> AttemptResult:
    """The result of an agent that cannot confine the attempt as it must: another one may."""
    message = "The agent cannot confine the plugin as it must be"
    return failed(_failure(TRANSIENT, "SANDBOX_UNAVAILABLE", message, reason), Evidence.SANDBOX_UNAVAILABLE)


def without_artifacts(kind: Failure.Class, code: str, message: str, cause: str) -> Failure:
    """A failure of an attempt that did its work, but whose artifacts cannot be kept, or its inputs not be had."""
    return _failure(kind, code, message, cause)


def _exited(end: Exit, around: Circumstances) -> AttemptResult:
    return _succeeded(end, around) if end.exit_code == 0 else _exited_with_error(end, around)


def _succeeded(end: Exit, around: Circumstances) -> AttemptResult:
    if end.result_truncated:
        message = "The result of the plugin is too large"
        cause = f"more than the {_size(around.output_bytes)} allowed"
        return failed(_failure(PERMANENT, "OUTPUT_TOO_LARGE", message, cause), Evidence.OUTPUT_LIMIT)
    output = end.result.strip() or b"null"
    try:
        json_document.parse(output)
    except json_document.InvalidDocument as error:
        return invalid_output(str(error))
    return AttemptResult(outcome=AttemptResult.SUCCEEDED, output_json=output)


def _exited_with_error(end: Exit, around: Circumstances) -> AttemptResult:
    code = end.exit_code or 0
    default_class = TRANSIENT if code == EXIT_TRANSIENT else PERMANENT
    told = _told_error(end)
    if told is not None and told.get("code") != _PASSED_ON:
        return _told_failure(told, default_class, _last_errors(around) or _explain_code(code))
    words = next((cause for words, cause in _LAST_WORDS if any(words in line for line in around.last_errors)), None)
    if words is not None:
        return _LIMITED[words](end, around)
    if told is not None:
        return _told_failure(told, default_class, _last_errors(around) or _explain_code(code))
    cause = _with_last_errors(_explain_code(code), around)
    message = (
        f"The plugin asked for a retry (exit code {code})" if code == EXIT_TRANSIENT else f"Ended with exit code {code}"
    )
    return failed(_failure(default_class, _PASSED_ON, message, cause), Evidence.EXIT_CODE)


def _explain_code(code: int) -> str:
    if code in _SHELL_CODES:
        return f"exit code {code}, by which shells say that {_SHELL_CODES[code]}"
    if 128 < code < 128 + signal.NSIG:
        return f"exit code {code}, by which shells say that {signal_name(code - 128)} killed a command"
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
    result = failed(failure, _TOLD_CAUSES.get(failure.code, Evidence.PLUGIN_ERROR))
    wait_ms = told.get("retryAfterMs")
    if isinstance(wait_ms, int | float) and wait_ms > 0:
        result.retry_after.FromTimedelta(timedelta(milliseconds=min(wait_ms, _MAX_RETRY_AFTER_MS)))
    return result


def _signaled(end: Exit, around: Circumstances) -> AttemptResult:
    name = signal_name(end.signal or 0)
    if name in OF_LIMITS:
        return _LIMITED[OF_LIMITS[name]](end, around)
    if around.cpu_seconds and name == "SIGKILL" and end.cpu_seconds >= around.cpu_seconds:
        return _over_cpu(end, around)
    peak = f"peak memory {_size(end.peak_memory_bytes)} of {_size(around.memory_bytes)} allowed"
    if end.fell_to_the_machine:
        return _out_of_memory(_with_last_errors(f"it was killed while the kernel killed for memory; {peak}", around))
    if name in OWN_FAULTS:
        failure = _failure(PERMANENT, "SIGNAL", f"Crashed ({name})", _with_last_errors(peak, around))
        return failed(failure, Evidence.CRASH)
    guess = "perhaps the kernel was out of memory; " if name == "SIGKILL" and not end.watch.by_kernel else ""
    cause = _with_last_errors(f"{name} was not sent by the agent; {guess}{peak}", around)
    return failed(_failure(TRANSIENT, "SIGNAL", f"Killed from outside by {name}", cause), Evidence.SIGNAL)


def _timed_out(end: Exit, around: Circumstances) -> AttemptResult:
    cause = f"ran for {end.elapsed_seconds:.1f} s of {around.timeout_seconds:g} s allowed"
    failure = _failure(
        TRANSIENT,
        "TIMEOUT",
        f"Did not end within {around.timeout_seconds:g} s",
        _with_last_errors(cause, around),
    )
    evidence = Evidence(cause=Evidence.WALL_TIMEOUT)
    return AttemptResult(outcome=AttemptResult.TIMED_OUT, failure=failure, evidence=evidence)


def _over_memory(end: Exit, around: Circumstances) -> AttemptResult:
    cause = f"peak {_size(end.peak_memory_bytes)} of {_size(around.memory_bytes)} allowed"
    if end.watch.kernel_kills and not end.watch.was_at_limit:
        return _out_of_memory(cause)
    return failed(_failure(PERMANENT, "MEMORY_LIMIT", "Used more memory than allowed", cause), Evidence.MEMORY_LIMIT)


def _out_of_memory(cause: str) -> AttemptResult:
    message = "The kernel killed it, for the machine had no memory left"
    return failed(_failure(TRANSIENT, "KERNEL_OOM", message, cause), Evidence.KERNEL_OOM)


def _over_cpu(end: Exit, around: Circumstances) -> AttemptResult:
    cause = _with_last_errors(f"used {end.cpu_seconds:.1f} s of {around.cpu_seconds:g} s allowed", around)
    failure = _failure(PERMANENT, "CPU_LIMIT", "Used more processor time than allowed", cause)
    return failed(failure, Evidence.CPU_LIMIT)


def _over_processes(end: Exit, around: Circumstances) -> AttemptResult:
    cause = _with_last_errors(f"{around.processes} processes and threads are allowed at a time", around)
    failure = _failure(PERMANENT, "PROCESS_LIMIT", "Wanted more processes than allowed", cause)
    return failed(failure, Evidence.PROCESS_LIMIT)


def _over_file_size(end: Exit, around: Circumstances) -> AttemptResult:
    cause = _with_last_errors(_how(end), around)
    return failed(
        _failure(PERMANENT, "FILE_LIMIT", "Wrote a larger file than allowed", cause),
        Evidence.FILE_LIMIT,
    )


def _without_room(end: Exit, around: Circumstances) -> AttemptResult:
    cause = _with_last_errors(_how(end), around)
    return failed(_failure(TRANSIENT, "DISK_FULL", _NO_ROOM, cause), Evidence.DISK_FULL)


def _how(end: Exit) -> str:
    return f"ended by {signal_name(end.signal)}" if end.signal is not None else f"exit code {end.exit_code}"


_LIMITED: MappingProxyType[Evidence.Cause, Callable[[Exit, Circumstances], AttemptResult]] = MappingProxyType(
    {
        Evidence.CPU_LIMIT: _over_cpu,
        Evidence.FILE_LIMIT: _over_file_size,
        Evidence.DISK_FULL: _without_room,
    }
)


def _stopped(end: Exit, around: Circumstances) -> AttemptResult:
    ran = f"ran for {end.elapsed_seconds:.1f} s"
    match around.stopped_by:
        case Event.SHUTDOWN | Event.HAND_BACK:
            return _lost("The agent was shut down before the attempt ended", ran, Evidence.AGENT_LOST)
        case Event.FENCE:
            message = "The agent could not reach the control plane and gave the attempt up"
            return _lost(message, ran, Evidence.LEASE_LOST)
        case _:
            cause = f"{ran}; {around.stop_reason or 'asked for by the control plane'}"
            failure = _failure(PERMANENT, "CANCELLED", "Cancelled", cause)
            evidence = Evidence(cause=Evidence.CANCELLED)
            return AttemptResult(outcome=AttemptResult.CANCELLED, failure=failure, evidence=evidence)


def _not_spawned(end: Exit, around: Circumstances) -> AttemptResult:
    cause = _with_last_errors(end.message, around)
    return failed(_failure(PERMANENT, "SPAWN_FAILED", "The plugin could not be started", cause), Evidence.SPAWN_FAILED)


def _not_confined(end: Exit, _around: Circumstances) -> AttemptResult:
    return sandbox_unavailable(end.message)


def _supervisor_lost(end: Exit, around: Circumstances) -> AttemptResult:
    cause = _with_last_errors(end.message, around)
    return _lost("The agent lost control of the attempt", cause, Evidence.AGENT_LOST)


def _lost(message: str, why: str, cause: Evidence.Cause) -> AttemptResult:
    failure = _failure(TRANSIENT, "AGENT_LOST", message, why)
    return AttemptResult(outcome=AttemptResult.LOST, failure=failure, evidence=Evidence(cause=cause))


_BY_REASON: MappingProxyType[EndReason, Callable[[Exit, Circumstances], AttemptResult]] = MappingProxyType(
    {
        EndReason.EXITED: _exited,
        EndReason.SIGNALED: _signaled,
        EndReason.TIMEOUT: _timed_out,
        EndReason.MEMORY_LIMIT: _over_memory,
        EndReason.CPU_LIMIT: _over_cpu,
        EndReason.PROCESS_LIMIT: _over_processes,
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


def _with_last_errors(cause: str, around: Circumstances) -> str:
    return f"{cause}; {_last_errors(around)}" if around.last_errors else cause


def _last_errors(around: Circumstances) -> str:
    lines = [line.strip() for line in around.last_errors[-_LINES_IN_CAUSE:]]
    return f"last lines of stderr: {' | '.join(lines)}" if lines else ""


def _size(count: int) -> str:
    return f"{count / MIB:.0f} MiB" if count >= MIB else f"{count} bytes"
