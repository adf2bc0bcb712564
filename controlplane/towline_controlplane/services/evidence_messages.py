"""The evidence of an attempt's death between its message and its row: bounded on the way in, completed on the way out.

What a row keeps is the message in JSON, without its cause and what follows from that.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf import json_format

from towline.v1 import agent_service_pb2, run_pb2
from towline.v1.run_pb2 import Evidence
from towline_controlplane import evidence
from towline_controlplane.evidence import Cause
from towline_controlplane.model import Failure

MAX_SAMPLES: Final = 60
MAX_LINES: Final = 20
MAX_LINES_CHARACTERS: Final = 4096

_CAUSES: Final[Mapping[int, Cause]] = {Evidence.Cause.Value(cause.value): cause for cause in Cause}
_CAUSE_OF_CODE: Final[Mapping[str, Cause]] = {
    "TIMEOUT": Cause.WALL_TIMEOUT,
    "OUTPUT_TOO_LARGE": Cause.OUTPUT_LIMIT,
    **{cause.value: cause for cause in Cause},
}
"""For agents that send no evidence yet."""
_TIMEOUTS: Final[Mapping[Cause, "Evidence.Timeout"]] = {
    Cause.WALL_TIMEOUT: Evidence.WALL,
    Cause.CPU_LIMIT: Evidence.CPU,
    Cause.QUEUE_TIMEOUT: Evidence.QUEUE,
    Cause.RUN_TIMEOUT: Evidence.RUN,
}


def stored(result: agent_service_pb2.AttemptResult) -> evidence.Evidence:
    """Returns what a result says of a death, as it is kept."""
    said = result.evidence
    cause = _CAUSES.get(said.cause) or _CAUSE_OF_CODE.get(result.failure.code, Cause.PLUGIN_ERROR)
    facts = Evidence(
        memory_limit_bytes=max(said.memory_limit_bytes, 0),
        peak_memory_bytes=max(said.peak_memory_bytes, 0),
        memory_enforcement=said.memory_enforcement,
        samples=[sample for sample in said.samples[-MAX_SAMPLES:] if _is_sound(sample)],
        signal=max(said.signal, 0),
        signal_name=said.signal_name[:32],
        sender=said.sender,
        exit_code=said.exit_code if said.HasField("exit_code") else None,
        killed_processes=max(said.killed_processes, 0),
        processes_left=max(said.processes_left, 0),
        last_stdout=_bounded(said.last_stdout),
        last_stderr=_bounded(said.last_stderr),
    )
    if said.HasField("sample_interval") and 0 <= said.sample_interval.seconds < 86_400:
        facts.sample_interval.FromMicroseconds(said.sample_interval.ToMicroseconds())
    plain = json_format.MessageToDict(facts)
    return evidence.Evidence(cause, json.dumps(plain, ensure_ascii=False, separators=(",", ":")))


def message(row: evidence.Evidence | None) -> run_pb2.Evidence | None:
    """Returns the evidence of a row; None stays unset."""
    if row is None:
        return None
    told = json_format.Parse(row.facts, Evidence(), ignore_unknown_fields=True)
    told.MergeFrom(Evidence(cause=row.cause.value, timeout=_TIMEOUTS.get(row.cause)))
    return told


def of_step(failure: Failure | None) -> run_pb2.Evidence | None:
    """Returns the evidence of a step that no attempt has ended; None if one has, or none was needed."""
    untaken = failure is not None and failure.code == Cause.QUEUE_TIMEOUT
    return message(evidence.Evidence(Cause.QUEUE_TIMEOUT)) if untaken else None


def _is_sound(sample: Evidence.Sample) -> bool:
    lasted = 0 <= sample.offset.seconds <= 366 * 86_400 and 0 <= sample.offset.nanos < 1_000_000_000
    return lasted and sample.memory_bytes >= 0 and math.isfinite(sample.cpu_seconds) and sample.cpu_seconds >= 0


def _bounded(lines: Iterable[str]) -> list[str]:
    kept: list[str] = []
    room = MAX_LINES_CHARACTERS
    for line in list(lines)[-MAX_LINES:][::-1]:
        kept.append(line[-room:])
        room -= len(line)
        if room <= 0:
            break
    return kept[::-1]
