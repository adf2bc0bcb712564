"""How the attempts of a step ended, for people: the cause in a sentence, memory as a line, the last words."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from towline.v1.run_pb2 import Attempt, Evidence, Step
from towline_cli.output import duration_text, printable

BARS: Final = "▁▂▃▄▅▆▇█"
MIB: Final = 1024 * 1024

_SENDERS: Final[Mapping["Evidence.Sender", str]] = MappingProxyType(
    {
        Evidence.AGENT: "sent by the agent",
        Evidence.KERNEL: "sent by the kernel",
        Evidence.ITSELF: "raised by the program itself",
        Evidence.OUTSIDE: "sent from outside",
    }
)


def attempt_lines(step: Step) -> Iterable[str]:
    """Yields what is to be said of each attempt of a step, oldest first, and of its end if that was none of them."""
    for attempt in step.attempts:
        yield f"attempt {attempt.number} {Attempt.State.Name(attempt.state)}{_took(attempt)}"
        if attempt.HasField("evidence"):
            yield from _certificate(attempt)
    if step.HasField("evidence"):
        yield f"then {Step.State.Name(step.state)}"
        yield from _certificate(step)


def sparkline(values: Sequence[float], highest: float) -> str:
    """Returns one bar for each value, the full one for `highest` or more."""
    if highest <= 0:
        return ""
    return "".join(BARS[min(len(BARS) - 1, int(max(value, 0) / highest * len(BARS)))] for value in values)


def _took(attempt: Attempt) -> str:
    lasted = duration_text(attempt.start_time, attempt.end_time)
    return f", {lasted}" if lasted else ""


def _certificate(ended: Attempt | Step) -> Iterable[str]:
    yield from (f"  {printable(line)}" for line in _told(ended))


def _told(ended: Attempt | Step) -> Iterable[str]:
    evidence = ended.evidence
    said = ended.error.message
    yield f"cause    {Evidence.Cause.Name(evidence.cause)}{f': {said}' if said else ''}"
    if ended.error.cause:
        yield f"because  {ended.error.cause}"
    if evidence.memory_limit_bytes:
        watched = " (watched by the kernel)" if evidence.memory_enforcement == Evidence.CGROUP else ""
        peak, limit = evidence.peak_memory_bytes / MIB, evidence.memory_limit_bytes / MIB
        yield f"memory   peak {peak:.0f} MiB of {limit:.0f} MiB{watched}"
    if evidence.samples:
        yield from _samples(evidence)
    if evidence.signal:
        yield f"signal   {evidence.signal_name}, {_SENDERS.get(evidence.sender, 'sent by nobody knows whom')}"
    if evidence.HasField("exit_code"):
        yield f"exit     {evidence.exit_code}"
    if evidence.killed_processes or evidence.processes_left:
        yield f"killed   {evidence.killed_processes} left behind, {evidence.processes_left} could not be killed"
    yield from (f"stdout   {line}" for line in evidence.last_stdout)
    yield from (f"stderr   {line}" for line in evidence.last_stderr)


def _samples(evidence: Evidence) -> Iterable[str]:
    memory = [sample.memory_bytes for sample in evidence.samples]
    seconds = evidence.samples[-1].offset.ToMilliseconds() / 1000 - evidence.samples[0].offset.ToMilliseconds() / 1000
    highest = max(evidence.memory_limit_bytes, *memory)
    yield f"         {sparkline(memory, highest)}  last {seconds:.1f} s, full bar {highest / MIB:.0f} MiB"
    yield f"cpu      {evidence.samples[-1].cpu_seconds:.1f} s at the last look"
