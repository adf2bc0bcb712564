"""Between the messages of the agent protocol and the nouns of the control plane, every bound checked on the way in."""

import hashlib
import importlib.metadata
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson

from towline.v1 import agent_pb2, agent_service_pb2, run_pb2, sandbox_pb2, workflow_pb2
from towline_controlplane import protocol_versions
from towline_controlplane.artifact_records import NamedArtifact
from towline_controlplane.artifact_uploads import MAX_ARTIFACTS
from towline_controlplane.engine.allowance import NO_RULES, Allowed, Platform
from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.errors import InvalidArgument, Violation
from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.handouts import StepOffer
from towline_controlplane.json_values import MAX_OUTPUT_DEPTH, parse
from towline_controlplane.model import AgentRecord, Failure, FailureClass, Lease, Usage
from towline_controlplane.services import evidence_messages
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.submissions import Report, Verdict
from towline_controlplane.tokens import fingerprint
from towline_dag.choices import SandboxLevel
from towline_dag.limits import MAX_BACKOFF_MS
from towline_plugins.catalog import BUILTINS

SERVER_VERSION = importlib.metadata.version("towline")
MAX_CHUNK_BYTES = 256 * 1024
MAX_OUTPUT_BYTES = 4 * 1024 * 1024
_MAX_WANT = 1_000
MAX_PLUGINS = 256
_DIGEST_BYTES = 32
_MAX_TEXT = 8_192
_SESSION_ID = re.compile(r"[0-9a-fA-F-]{8,64}")

_OUTCOMES: Mapping[int, Outcome] = {
    agent_service_pb2.AttemptResult.SUCCEEDED: Outcome.SUCCEEDED,
    agent_service_pb2.AttemptResult.FAILED: Outcome.FAILED,
    agent_service_pb2.AttemptResult.CANCELLED: Outcome.CANCELLED,
    agent_service_pb2.AttemptResult.TIMED_OUT: Outcome.TIMED_OUT,
    agent_service_pb2.AttemptResult.LOST: Outcome.LOST,
}

_VERDICT_CODES: Mapping[Verdict, agent_service_pb2.Verdict.Code] = {
    Verdict.ACCEPTED: agent_service_pb2.Verdict.ACCEPTED,
    Verdict.LEASE_LOST: agent_service_pb2.Verdict.LEASE_LOST,
    Verdict.ALREADY_REPORTED: agent_service_pb2.Verdict.ALREADY_REPORTED,
}


_MAX_FEATURES = 64
_MAX_REASON = 512
_ISOLATIONS = frozenset({"netns", "seccomp"})

# A level that this control plane does not know is not believed.
SANDBOX_LEVELS: Mapping[int, SandboxLevel] = {
    sandbox_pb2.Sandbox.Level.Value(level.name): level for level in SandboxLevel
}


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """What the control plane tells its agents."""

    offer_seconds: float
    platform: Platform = NO_RULES
    credential_days: float = 0
    """How long an agent keeps its credential; 0: until an admin says so."""


def check_session_id(session_id: str) -> None:
    """Refuses what cannot be a session id."""
    if not _SESSION_ID.fullmatch(session_id):
        raise InvalidArgument.of("sessionId", "must be 8 to 64 hexadecimal digits or dashes")


def want(count: int) -> int:
    """Returns a number of wanted offers within its bounds."""
    if count < 0:
        raise InvalidArgument.of("want", "must not be negative")
    return min(count, _MAX_WANT)


def seconds(value: Duration) -> float:
    """Returns a duration in seconds, not below 0."""
    return max(value.seconds + value.nanos / 1e9, 0.0)


def duration(value: float) -> Duration:
    """Returns seconds as a Duration."""
    return Duration(seconds=int(value), nanos=int(value % 1 * 1e9))


def session_info(info: agent_pb2.AgentInfo) -> SessionInfo:
    """Returns what an agent says of itself, bounded."""
    if not 1 <= info.slots <= _MAX_WANT:
        raise InvalidArgument.of("info.slots", f"must be 1 to {_MAX_WANT}")
    if len(info.labels) > 64 or any(len(k) > 128 or len(v) > 256 for k, v in info.labels.items()):
        raise InvalidArgument.of("info.labels", "at most 64, keys of 128 and values of 256 characters")
    if len(info.plugins) > MAX_PLUGINS or any(not 0 < len(name) <= 128 for name in info.plugins):
        raise InvalidArgument.of("info.plugins", f"at most {MAX_PLUGINS}, names of 1 to 128 characters")
    if len(info.lacking) > MAX_PLUGINS or any(not 0 < len(name) <= 128 for name in info.lacking):
        raise InvalidArgument.of("info.lacking", f"at most {MAX_PLUGINS}, names of 1 to 128 characters")
    return SessionInfo(
        slots=info.slots,
        labels=dict(info.labels),
        version=info.version[:64],
        hostname=info.hostname[:255],
        platform=info.platform[:64],
        sandbox_level=SANDBOX_LEVELS.get(info.sandbox.level, SandboxLevel.L0),
        sandbox=_sandbox(info.sandbox),
        network_isolation=info.sandbox.network_isolation if info.sandbox.network_isolation in _ISOLATIONS else "none",
        plugins=sorted(set(info.plugins)),
        protocol_version=protocol_versions.supported(info.protocol_version),
        lacking=sorted(set(info.lacking)),
        unschedulable=info.unschedulable[:_MAX_REASON] or None,
        memory_bytes=max(info.memory_bytes, 0),
    )


def _sandbox(message: sandbox_pb2.Sandbox) -> str:
    if max(len(message.features), len(message.missing)) > _MAX_FEATURES:
        raise InvalidArgument.of("info.sandbox", f"at most {_MAX_FEATURES} features")
    bounded = sandbox_pb2.Sandbox(
        features=[name[:64] for name in message.features],
        missing=[
            sandbox_pb2.Sandbox.MissingFeature(feature=each.feature[:64], reason=each.reason[:_MAX_REASON])
            for each in message.missing
        ],
        memory_enforcement=message.memory_enforcement[:64],
        network_isolation=message.network_isolation[:64],
        kernel=message.kernel[:128],
    )
    if message.HasField("probe_time"):
        bounded.probe_time.CopyFrom(message.probe_time)
    return MessageToJson(bounded, indent=None)


def lease(message: agent_service_pb2.Lease, agent: AgentRecord) -> Lease:
    """Returns a lease as the calling agent presents it; the token only as its hash."""
    return Lease(message.run_id, message.node_id, message.attempt, message.epoch, fingerprint(message.token), agent.id)


def leases(presented: Iterable[agent_service_pb2.Lease], agent: AgentRecord) -> list[Lease]:
    """Returns leases as the calling agent presents them."""
    return [lease(message, agent) for message in presented]


def log_data(request: agent_service_pb2.AppendLogsRequest) -> bytes:
    """Returns the bytes of a chunk within its bounds: whole records from a real offset on."""
    violations: list[Violation] = []
    if request.offset < 0:
        violations.append(Violation("offset", "must not be negative"))
    if len(request.data) > MAX_CHUNK_BYTES:
        violations.append(Violation("data", f"at most {MAX_CHUNK_BYTES} bytes"))
    if request.data and not request.data.endswith(b"\n"):
        violations.append(Violation("data", "must end with a line feed"))
    if violations:
        raise InvalidArgument(violations)
    return request.data


def report(result: agent_service_pb2.AttemptResult, agent: AgentRecord) -> Report | InvalidArgument:
    """Returns a result ready to be recorded, or why it cannot be.

    An output that is no JSON ends the attempt as a permanent failure: the step must not wait for a better report.
    """
    outcome = _OUTCOMES.get(result.outcome)
    if outcome is None:
        return InvalidArgument.of("outcome", "must be SUCCEEDED, FAILED, CANCELLED, TIMED_OUT or LOST")
    if len(result.artifacts) > MAX_ARTIFACTS:
        return InvalidArgument.of("artifacts", f"at most {MAX_ARTIFACTS}")
    named = tuple({each.name: named_artifact(each) for each in result.artifacts}.values())
    failure = _failure(result.failure) if result.HasField("failure") else None
    output: str | None = None
    if outcome is Outcome.SUCCEEDED:
        output, failure = _output(result.output_json)
        outcome = Outcome.SUCCEEDED if failure is None else Outcome.FAILED
    end = EndAttempt(
        node_id=result.lease.node_id,
        outcome=outcome,
        digest=_digest(result),
        output=output,
        failure=failure,
        usage=_usage(result),
        elapsed_us=int(seconds(result.elapsed) * 1_000_000),
        retry_after_ms=_retry_after_ms(result),
        evidence=_evidence(outcome, result),
        sandbox_level=SANDBOX_LEVELS.get(result.sandbox_level),
    )
    return Report(lease(result.lease, agent), end, named)


def verdicts(
    reports: Sequence[Report | InvalidArgument], answers: Sequence[Verdict | Exception]
) -> list[agent_service_pb2.Verdict]:
    """Returns one verdict for each result, in their order; raises what kept a result from being recorded."""
    recorded = iter(answers)
    found: list[agent_service_pb2.Verdict] = []
    for each in reports:
        if isinstance(each, InvalidArgument):
            found.append(agent_service_pb2.Verdict(code=agent_service_pb2.Verdict.INVALID, message=each.message))
            continue
        answer = next(recorded)
        if isinstance(answer, Exception):
            raise answer
        found.append(agent_service_pb2.Verdict(code=_VERDICT_CODES[answer]))
    return found


def offer(
    given: StepOffer, inputs: Mapping[str, str], limits: AgentLimits, waited: float = 0.0
) -> agent_service_pb2.Offer:
    """Returns the message of an offer that was made when its request had waited for so many seconds.

    `inputs` are the JSON texts of the outputs of its predecessors by node id.
    """
    members = (f"{json.dumps(source)}:{text}" for source, text in inputs.items())
    attempt = given.attempt
    return agent_service_pb2.Offer(
        lease=agent_service_pb2.Lease(
            run_id=attempt.run_id,
            node_id=attempt.node_id,
            attempt=attempt.number,
            epoch=attempt.epoch,
            token=given.token,
        ),
        execution_key=attempt.execution_key,
        plugin=agent_service_pb2.PluginRef(
            name=given.plugin.name,
            version=given.plugin.version,
            digest=given.plugin.digest,
            entry_point=given.plugin.entry_point,
        ),
        config_json=given.config.encode(),
        inputs_json=("{" + ",".join(members) + "}").encode(),
        run_input_json=given.run.input.encode(),
        limits=_limits(given.allowed),
        confirm_within=duration(waited + limits.offer_seconds),
        workflow_id=given.run.workflow_id,
        owner_id=given.run.owner_id,
        weight=attempt.weight,
        confinement=_confinement(given, limits),
    )


def _limits(allowed: Allowed) -> workflow_pb2.Limits:
    rest, timeout_ms = allowed.rest, allowed.timeout_ms
    return workflow_pb2.Limits(
        timeout=Duration(seconds=timeout_ms // 1000, nanos=timeout_ms % 1000 * 1_000_000),
        memory_bytes=allowed.memory_limit_mb << 20,
        output_bytes=rest.output_kb << 10,
        log_bytes=rest.log_kb << 10,
        cpu_time=Duration(seconds=rest.cpu_seconds) if rest.cpu_seconds else None,
        processes=rest.processes,
        open_files=rest.open_files,
        file_bytes=rest.file_mb << 20,
        artifact_bytes=rest.artifact_mb << 20,
    )


def _evidence(outcome: Outcome, result: agent_service_pb2.AttemptResult) -> Evidence | None:
    if outcome is Outcome.SUCCEEDED:
        return None
    if result.outcome == agent_service_pb2.AttemptResult.SUCCEEDED:  # with an output that cannot be recorded
        return Evidence(Cause.INVALID_OUTPUT)
    return evidence_messages.stored(result)


def _confinement(given: StepOffer, limits: AgentLimits) -> sandbox_pb2.Confinement:
    asked = limits.platform.enforced(given.requirements)
    builtin = BUILTINS.get(given.plugin.name) if not given.plugin.digest else None
    return sandbox_pb2.Confinement(
        min_sandbox=SandboxLevel(asked.sandbox_level).name,
        network=asked.network.value,
        network_unneeded=builtin is not None and not builtin.uses_network,
    )


def named_artifact(message: agent_service_pb2.ResultArtifact) -> NamedArtifact:
    """Returns an artifact as an agent names it; its bounds are checked where it is put."""
    return NamedArtifact(message.name, message.size_bytes, message.digest)


def _failure(message: run_pb2.Failure) -> Failure:
    transient = getattr(message, "class") == run_pb2.Failure.TRANSIENT
    kind = FailureClass.TRANSIENT if transient else FailureClass.PERMANENT
    return Failure(kind, message.code[:64], message.message[:_MAX_TEXT], message.cause[:_MAX_TEXT])


def _retry_after_ms(result: agent_service_pb2.AttemptResult) -> int | None:
    if not result.HasField("retry_after"):
        return None
    return min(int(seconds(result.retry_after) * 1000), MAX_BACKOFF_MS)


def _usage(result: agent_service_pb2.AttemptResult) -> Usage:
    used, log = result.usage, result.log
    return Usage(
        peak_memory_bytes=max(used.peak_memory_bytes, 0),
        cpu_seconds=_finite(used.cpu_seconds),
        log_bytes=max(result.log_bytes, 0),
        log_digest=log.sha256.hex() if len(log.sha256) == _DIGEST_BYTES else "",
        log_dropped_bytes=max(log.dropped_bytes, 0),
        log_dropped_lines=max(log.dropped_lines, 0),
    )


def _output(text: bytes) -> tuple[str | None, Failure | None]:
    try:
        parse(text, "output", max_bytes=MAX_OUTPUT_BYTES, max_depth=MAX_OUTPUT_DEPTH)
    except InvalidArgument as error:
        return None, Failure(FailureClass.PERMANENT, "INVALID_OUTPUT", error.message[:_MAX_TEXT])
    return text.decode(), None


def _digest(result: agent_service_pb2.AttemptResult) -> str:
    said = agent_service_pb2.AttemptResult(outcome=result.outcome, output_json=result.output_json)
    if result.HasField("failure"):
        said.failure.CopyFrom(result.failure)
    said.artifacts.extend(result.artifacts)
    return hashlib.sha256(said.SerializeToString(deterministic=True)).hexdigest()


def _finite(value: float) -> float:
    return value if math.isfinite(value) and value >= 0 else 0.0
