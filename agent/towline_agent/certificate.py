"""The death certificate of an attempt: what was seen and counted of it, who sent the signal, its last words.

Pure. The cause is for `outcomes` to say; here are the facts beside it, bounded as the protocol wants them.
"""

import signal
from collections.abc import Iterable, Sequence
from datetime import timedelta
from types import MappingProxyType

from towline.v1.run_pb2 import Evidence
from towline_agent.execution import EndReason, Exit

MAX_SAMPLES = 60
MAX_LINES = 20
MAX_LINES_BYTES = 4096

OWN_FAULTS = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP"})
OF_LIMITS = MappingProxyType({"SIGXCPU": Evidence.CPU_LIMIT, "SIGXFSZ": Evidence.FILE_LIMIT})
"""Sent by the kernel at a limit of the process itself."""

_BY_AGENT = frozenset(
    {EndReason.TIMEOUT, EndReason.MEMORY_LIMIT, EndReason.CPU_LIMIT, EndReason.PROCESS_LIMIT, EndReason.STOPPED}
)
_TIMEOUTS = MappingProxyType(
    {
        Evidence.WALL_TIMEOUT: Evidence.WALL,
        Evidence.CPU_LIMIT: Evidence.CPU,
    }
)


def complete(evidence: Evidence, end: Exit, memory_bytes: int, last_lines: tuple[Sequence[str], Sequence[str]]) -> None:
    """Adds to a cause what is known of the end; `last_lines` are those of standard output and error."""
    watch = end.watch
    evidence.memory_limit_bytes = memory_bytes
    evidence.peak_memory_bytes = end.peak_memory_bytes
    evidence.memory_enforcement = Evidence.CGROUP if watch.by_kernel else Evidence.SAMPLED
    if watch.samples:
        evidence.sample_interval.FromTimedelta(timedelta(seconds=watch.sample_seconds))
    for sample in watch.samples[-MAX_SAMPLES:]:
        message = evidence.samples.add(memory_bytes=sample.memory_bytes, cpu_seconds=sample.cpu_seconds)
        message.offset.FromTimedelta(timedelta(seconds=sample.offset_seconds))
    if end.signal is not None:
        evidence.signal, evidence.signal_name = end.signal, signal_name(end.signal)
        evidence.sender = _sender(end)
    if end.exit_code is not None:
        evidence.exit_code = end.exit_code
    evidence.timeout = _TIMEOUTS.get(evidence.cause, Evidence.TIMEOUT_UNSPECIFIED)
    evidence.killed_processes = len(end.killed)
    evidence.processes_left = watch.left
    evidence.last_stdout.extend(last_lines[0])
    evidence.last_stderr.extend(last_lines[1])


def signal_name(number: int) -> str:
    """Returns the name of a signal, or its number if it has none here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def bounded_lines(text: str) -> list[str]:
    """Returns the last lines of a text, few and short enough to be stored; a line that is cut begins with `…`."""
    kept: list[str] = []
    room = MAX_LINES_BYTES
    for line in _backwards(text):
        size = len(line.encode()) + 1
        if size > room:
            if not kept:
                kept.append("…" + line.encode()[3 - room :].decode(errors="ignore"))
            break
        room -= size
        kept.append(line)
    return kept[::-1]


def _backwards(text: str) -> Iterable[str]:
    return reversed([line for line in text.splitlines() if line.strip()][-MAX_LINES:])


def _sender(end: Exit) -> Evidence.Sender:
    name = signal_name(end.signal or 0)
    if (end.watch.kernel_kills and name == "SIGKILL") or end.fell_to_the_machine:
        return Evidence.KERNEL
    if name in OF_LIMITS:
        return Evidence.KERNEL
    if end.reason in _BY_AGENT:
        return Evidence.AGENT
    return Evidence.ITSELF if name in OWN_FAULTS else Evidence.OUTSIDE
