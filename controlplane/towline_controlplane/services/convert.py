"""Rows to messages: the one place where the meaning of a row meets its form on the wire.

DAGs are converted in `dag_documents`, free JSON in `struct_values`. Enums have the same names on both sides.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import Parse
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from towline.v1 import (
    agent_pb2,
    api_key_pb2,
    artifact_pb2,
    plugin_pb2,
    run_pb2,
    sandbox_pb2,
    user_pb2,
    workflow_pb2,
)
from towline_controlplane import model
from towline_controlplane.identity import ApiKey
from towline_controlplane.json_values import object_of
from towline_controlplane.log_status import LogStatus
from towline_controlplane.registry import Plugin, PluginVersion
from towline_controlplane.services import evidence_messages
from towline_controlplane.services.dag_documents import dag_message
from towline_controlplane.services.etags import etag
from towline_controlplane.services.log_records import LogRecord
from towline_controlplane.services.struct_values import wire_object, wire_text, wire_texts
from towline_controlplane.services.version_documents import policies
from towline_controlplane.store.agents import ListedAgent
from towline_controlplane.store.artifacts import MadeArtifact
from towline_dag.choices import Limits, SandboxLevel
from towline_plugins.catalog import Builtin

_STREAMS: Final = {
    "O": run_pb2.LogLine.STDOUT,
    "E": run_pb2.LogLine.STDERR,
    "S": run_pb2.LogLine.SYSTEM,
}


def timestamp(micros: int | None) -> Timestamp | None:
    """Returns microseconds since the epoch as a message; None stays unset."""
    if micros is None:
        return None
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def user(row: model.User) -> user_pb2.User:
    """Returns the user without its password hash."""
    return user_pb2.User(
        id=row.id,
        email=row.email,
        name=row.name,
        role=row.role.value,
        create_time=timestamp(row.create_time),
        disabled=row.disabled,
    )


def api_key(row: ApiKey) -> api_key_pb2.ApiKey:
    """Returns the API key without its hash."""
    return api_key_pb2.ApiKey(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        owner_id=row.user_id,
        scopes=row.scopes,
        create_time=timestamp(row.create_time),
        expire_time=timestamp(row.expire_time),
        use_time=timestamp(row.use_time),
    )


def workflow(row: model.Workflow, dag: str | None = None) -> workflow_pb2.Workflow:
    """Returns the workflow, with its DAG and policies if the stored document of a version is given."""
    return workflow_pb2.Workflow(
        id=row.id,
        name=row.name,
        description=row.description,
        owner_id=row.owner_id,
        current_version=row.current_version,
        pinned_version_id=row.pinned_version_id or "",
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
        etag=etag(row),
        dag=None if dag is None else dag_message(dag),
        **({} if dag is None else policies(dag)),
    )


def workflow_version(row: model.WorkflowVersion) -> workflow_pb2.WorkflowVersion:
    """Returns the version with its DAG."""
    return workflow_pb2.WorkflowVersion(
        id=row.id,
        workflow_id=row.workflow_id,
        number=row.number,
        dag=dag_message(row.dag),
        create_time=timestamp(row.create_time),
        **policies(row.dag),
    )


def run(row: model.Run, output: Mapping[str, str] | None = None) -> run_pb2.Run:
    """Returns the run; `output` holds the stored outputs of its last steps by node id, for one without a mapping."""
    return run_pb2.Run(
        id=row.id,
        workflow_id=row.workflow_id,
        version_id=row.version_id,
        state=row.state.value,
        input=wire_text(row.input),
        output=_output(row, output),
        error=failure(row.error),
        create_time=timestamp(row.create_time),
        start_time=timestamp(row.start_time),
        end_time=timestamp(row.end_time),
        owner_id=row.owner_id,
        priority=row.priority,
        labels=row.labels,
        cancel_requested=row.cancel_requested and not row.deadline_reached,
        retries=row.retries,
        deadline_time=timestamp(row.deadline),
        waiting_for_slot=not row.admitted and row.end_time is None,
        frozen=row.frozen,
        schedule_id=row.schedule_id or "",
        scheduled_time=timestamp(row.scheduled_time),
    )


def _output(row: model.Run, of_last_steps: Mapping[str, str] | None) -> Value | None:
    if row.output is not None:
        return wire_text(row.output)
    return None if of_last_steps is None else wire_texts(of_last_steps)


def step(row: model.Step, kind: str, execution_key: str) -> run_pb2.Step:
    """Returns the step; `kind` is what its node calls, `execution_key` names its newest attempt."""
    ready_later = row.state is model.StepState.READY and row.not_before > 0
    return run_pb2.Step(
        node_id=row.node_id,
        state=row.state.value,
        attempt=row.attempt,
        execution_key=execution_key,
        agent_id=row.agent_id or "",
        output=None if row.output is None else wire_text(row.output),
        error=failure(row.error),
        start_time=timestamp(row.start_time),
        end_time=timestamp(row.end_time),
        type=kind,
        not_before_time=timestamp(row.not_before) if ready_later else None,
        run_id=row.run_id,
        output_digest=row.output_digest or "",
        artifact_count=row.artifact_count,
        evidence=evidence_messages.of_step(row.error),
    )


def attempt(row: model.Attempt, log: LogStatus) -> run_pb2.Attempt:
    """Returns the attempt without its lease token."""
    return run_pb2.Attempt(
        number=row.number,
        state=row.state.value,
        execution_key=row.execution_key,
        agent_id=row.agent_id,
        error=failure(row.error),
        create_time=timestamp(row.create_time),
        start_time=timestamp(row.start_time),
        end_time=timestamp(row.end_time),
        usage=run_pb2.Usage(
            peak_memory_bytes=row.usage.peak_memory_bytes,
            cpu_seconds=row.usage.cpu_seconds,
            log_bytes=row.usage.log_bytes,
        ),
        epoch=row.epoch,
        evidence=evidence_messages.message(row.evidence),
        memory_limit_mb=row.memory_limit_mb,
        log=log_state(row, log),
        sandbox_level=None if row.sandbox_level is None else SandboxLevel(row.sandbox_level).name,
    )


def log_state(row: model.Attempt, log: LogStatus) -> run_pb2.LogState:
    """Returns what is there of the log of an attempt."""
    missing = [] if log.missing is None else [run_pb2.LogState.Gap(start=log.missing[0], end=log.missing[1] or 0)]
    return run_pb2.LogState(
        state=log.condition.value,
        size=log.size or 0,
        stored_bytes=log.stored_bytes,
        missing=missing,
        dropped_bytes=row.usage.log_dropped_bytes,
        dropped_lines=row.usage.log_dropped_lines,
        sha256=row.usage.log_digest,
        verified=log.verified,
        archived=log.archived,
    )


def attempt_log(row: model.Attempt, log: LogStatus) -> run_pb2.AttemptLog:
    """Returns what is there of a log, by its attempt."""
    return run_pb2.AttemptLog(node_id=row.node_id, attempt=row.number, log=log_state(row, log))


def artifact(row: MadeArtifact) -> artifact_pb2.Artifact:
    """Returns the artifact with the state of its attempt."""
    made = row.artifact
    return artifact_pb2.Artifact(
        node_id=made.node_id,
        attempt=made.attempt,
        name=made.name,
        size_bytes=made.size_bytes,
        digest=made.digest,
        content_type=made.content_type,
        create_time=timestamp(made.create_time),
        attempt_state=row.attempt_state.value,
    )


def failure(row: model.Failure | None) -> run_pb2.Failure | None:
    """Returns the failure; None stays unset."""
    if row is None:
        return None
    message = run_pb2.Failure(code=row.code, message=row.message, cause=row.cause)
    setattr(message, "class", row.kind.value)
    return message


def event(row: model.Event) -> run_pb2.Event:
    """Returns the event with its details."""
    return run_pb2.Event(
        sequence=row.sequence,
        create_time=timestamp(row.time),
        type=row.type.value,
        node_id=row.node_id,
        attempt=row.attempt,
        details=wire_object(row.details) if row.details else None,
    )


def log_line(node_id: str, number: int, record: LogRecord) -> run_pb2.LogLine:
    """Returns a line of the log of a step's attempt `number`."""
    return run_pb2.LogLine(
        node_id=node_id,
        attempt=number,
        create_time=timestamp(record.time),
        stream=_STREAMS[record.stream],
        text=record.text,
        partial=record.partial,
    )


def _sandbox(row: model.AgentRecord) -> sandbox_pb2.Sandbox:
    message = Parse(row.sandbox, sandbox_pb2.Sandbox(), ignore_unknown_fields=True)
    message.MergeFrom(sandbox_pb2.Sandbox(level=SandboxLevel(row.sandbox_level).name))
    return message


def agent(listed: ListedAgent, *, online: bool) -> agent_pb2.Agent:
    """Returns the agent without its credential."""
    row = listed.agent
    info = agent_pb2.AgentInfo(
        slots=row.slots,
        labels=row.labels,
        version=row.version,
        hostname=row.hostname,
        platform=row.platform,
        sandbox=_sandbox(row),
        plugins=row.plugins,
        protocol_version=row.protocol_version,
        lacking=row.lacking,
        memory_bytes=row.memory_bytes,
    )
    return agent_pb2.Agent(
        id=row.id,
        name=row.name,
        state=agent_pb2.Agent.ONLINE if online else agent_pb2.Agent.OFFLINE,
        info=info,
        running=listed.running,
        create_time=timestamp(row.create_time),
        last_seen_time=timestamp(row.last_seen_time),
        drained=row.drained,
        disabled=row.disabled,
        unschedulable=row.unschedulable or "",
        slots_taken=listed.taken,
        sandbox_cap=None if row.sandbox_cap is None else SandboxLevel(row.sandbox_cap).name,
    )


def plugin(row: Plugin, versions: Iterable[PluginVersion]) -> plugin_pb2.Plugin:
    """Returns the plugin with the given versions, newest first."""
    newest_first = list(versions)
    return plugin_pb2.Plugin(
        id=row.id,
        name=row.name,
        description=row.description,
        owner_id=row.owner_id,
        latest_version=next((version.version for version in newest_first if version.enabled), ""),
        create_time=timestamp(row.create_time),
        versions=[plugin_version(version) for version in newest_first],
    )


def builtin(entry: Builtin) -> plugin_pb2.Plugin:
    """Returns a built-in as a plugin without owner, whose id is its name."""
    version = plugin_pb2.PluginVersion(
        entry_point=entry.entry_point,
        config_schema=wire_object(entry.config_schema),
        output_schema=wire_object(entry.output_schema),
        enabled=True,
        permissions=_permissions(entry.network, ()),
        min_sandbox=entry.min_sandbox,
        limits=plugin_limits(Limits(**entry.limits), 0, 0),
    )
    return plugin_pb2.Plugin(
        id=entry.name, name=entry.name, description=entry.description, builtin=True, versions=[version]
    )


def plugin_version(row: PluginVersion) -> plugin_pb2.PluginVersion:
    """Returns the version with its schemas."""
    return plugin_pb2.PluginVersion(
        id=row.id,
        version=row.version,
        digest=row.digest,
        size_bytes=row.size_bytes,
        entry_point=row.entry_point,
        config_schema=wire_object(object_of(row.config_schema)),
        output_schema=wire_object(object_of(row.output_schema)),
        enabled=row.enabled,
        create_time=timestamp(row.create_time),
        permissions=_permissions(row.permissions.network, row.permissions.secrets),
        min_sandbox=SandboxLevel(row.min_sandbox).name,
        limits=plugin_limits(row.limits, row.timeout_ms, row.memory_limit_mb),
    )


def plugin_limits(limits: Limits, timeout_ms: int, memory_limit_mb: int) -> workflow_pb2.Limits:
    """Returns the limits of a plugin; what it does not say stays unset."""
    return workflow_pb2.Limits(
        timeout=_milliseconds(timeout_ms),
        memory_bytes=memory_limit_mb << 20,
        output_bytes=limits.output_kb << 10,
        log_bytes=limits.log_kb << 10,
        cpu_time=_milliseconds(limits.cpu_seconds * 1000),
        processes=limits.processes,
        open_files=limits.open_files,
        file_bytes=limits.file_mb << 20,
        artifact_bytes=limits.artifact_mb << 20,
    )


def _milliseconds(value: int) -> Duration | None:
    return Duration(seconds=value // 1000, nanos=value % 1000 * 1_000_000) if value else None


def _permissions(network: str, secrets: Iterable[str]) -> plugin_pb2.Permissions:
    return plugin_pb2.Permissions(network=network, secrets=secrets)
