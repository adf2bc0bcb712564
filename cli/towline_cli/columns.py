"""The columns in which each kind of resource is listed."""

from typing import Final

from towline.v1.agent_admin_service_pb2 import EnrollmentToken
from towline.v1.agent_pb2 import Agent
from towline.v1.api_key_pb2 import ApiKey
from towline.v1.artifact_pb2 import Artifact
from towline.v1.audit_pb2 import AuditEvent
from towline.v1.explanation_pb2 import Explanation
from towline.v1.plugin_pb2 import Plugin
from towline.v1.run_pb2 import Attempt, Run, Step
from towline.v1.sandbox_pb2 import Sandbox
from towline.v1.schedule_pb2 import Firing, Schedule
from towline.v1.secret_pb2 import Secret
from towline.v1.user_pb2 import User
from towline.v1.workflow_pb2 import Workflow, WorkflowVersion
from towline_cli.output import Column, duration_text, time_text


def _step_error(step: Step) -> str:
    return f"{step.error.code}: {step.error.message}" if step.HasField("error") else ""


def _labels(agent: Agent) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(agent.info.labels.items()))


def _when(schedule: Schedule) -> str:
    return f"{schedule.cron} ({schedule.time_zone})" if schedule.cron else f"every {schedule.interval.seconds} s"


def _agent_state(agent: Agent) -> str:
    return (
        f"{Agent.State.Name(agent.state)}{' (disabled)' if agent.disabled else ' (drained)' if agent.drained else ''}"
    )


def _plugin_kind(plugin: Plugin) -> str:
    return "built-in" if plugin.builtin else plugin.latest_version


WORKFLOWS: Final = (
    Column[Workflow]("ID", lambda workflow: workflow.id),
    Column[Workflow]("NAME", lambda workflow: workflow.name),
    Column[Workflow]("VERSION", lambda workflow: str(workflow.current_version)),
    Column[Workflow]("PINNED", lambda workflow: workflow.pinned_version_id),
    Column[Workflow]("UPDATED", lambda workflow: time_text(workflow.update_time)),
)
VERSIONS: Final = (
    Column[WorkflowVersion]("NUMBER", lambda version: str(version.number)),
    Column[WorkflowVersion]("ID", lambda version: version.id),
    Column[WorkflowVersion]("NODES", lambda version: str(len(version.dag.nodes))),
    Column[WorkflowVersion]("CREATED", lambda version: time_text(version.create_time)),
)
RUNS: Final = (
    Column[Run]("ID", lambda run: run.id),
    Column[Run]("WORKFLOW", lambda run: run.workflow_id),
    Column[Run]("STATE", lambda run: Run.State.Name(run.state)),
    Column[Run]("STARTED", lambda run: time_text(run.start_time)),
    Column[Run]("DURATION", lambda run: duration_text(run.start_time, run.end_time)),
)
STEPS: Final = (
    Column[Step]("NODE", lambda step: step.node_id),
    Column[Step]("TYPE", lambda step: step.type),
    Column[Step]("STATE", lambda step: Step.State.Name(step.state)),
    Column[Step]("ATTEMPT", lambda step: str(step.attempt or "")),
    Column[Step]("DURATION", lambda step: duration_text(step.start_time, step.end_time)),
    Column[Step]("ERROR", _step_error),
)
ARTIFACTS: Final = (
    Column[Artifact]("NODE", lambda artifact: artifact.node_id),
    Column[Artifact]("ATTEMPT", lambda artifact: str(artifact.attempt)),
    Column[Artifact]("NAME", lambda artifact: artifact.name),
    Column[Artifact]("BYTES", lambda artifact: str(artifact.size_bytes)),
    Column[Artifact]("STATE", lambda artifact: Attempt.State.Name(artifact.attempt_state)),
    Column[Artifact]("DIGEST", lambda artifact: artifact.digest),
)
PLUGINS: Final = (
    Column[Plugin]("NAME", lambda plugin: plugin.name),
    Column[Plugin]("VERSION", _plugin_kind),
    Column[Plugin]("ID", lambda plugin: plugin.id),
    Column[Plugin]("DESCRIPTION", lambda plugin: plugin.description),
)
SECRETS: Final = (
    Column[Secret]("NAME", lambda secret: secret.name),
    Column[Secret]("VERSION", lambda secret: str(secret.version)),
    Column[Secret]("GRANTED TO", lambda secret: ",".join(secret.plugins)),
    Column[Secret]("UPDATED", lambda secret: time_text(secret.update_time)),
    Column[Secret]("OWNER", lambda secret: secret.owner_id),
    Column[Secret]("ID", lambda secret: secret.id),
)
SCHEDULES: Final = (
    Column[Schedule]("NAME", lambda schedule: schedule.name),
    Column[Schedule]("STATE", lambda schedule: Schedule.State.Name(schedule.state)),
    Column[Schedule]("WHEN", _when),
    Column[Schedule]("NEXT", lambda schedule: time_text(schedule.next_times[0]) if schedule.next_times else ""),
    Column[Schedule]("TROUBLE", lambda schedule: schedule.error.message),
    Column[Schedule]("WORKFLOW", lambda schedule: schedule.workflow_id),
    Column[Schedule]("ID", lambda schedule: schedule.id),
)
FIRINGS: Final = (
    Column[Firing]("TIME", lambda firing: time_text(firing.scheduled_time)),
    Column[Firing]("BY", lambda firing: Firing.Origin.Name(firing.origin)),
    Column[Firing]("OUTCOME", lambda firing: Firing.Outcome.Name(firing.outcome)),
    Column[Firing]("RUN", lambda firing: firing.run_id),
    Column[Firing]("STATE", lambda firing: Run.State.Name(firing.run_state) if firing.run_state else ""),
    Column[Firing]("WHY", lambda firing: firing.reason),
)
VERDICTS: Final = (
    Column[Explanation.Verdict]("RULE", lambda verdict: Explanation.Rule.Name(verdict.rule)),
    Column[Explanation.Verdict]("HOLDS", lambda verdict: "yes" if verdict.holds else "no"),
    Column[Explanation.Verdict]("WHY", lambda verdict: verdict.message),
)
AGENT_VERDICTS: Final = (
    Column[Explanation.AgentVerdict]("AGENT", lambda agent: agent.name),
    Column[Explanation.AgentVerdict]("MAY TAKE IT", lambda agent: "yes" if agent.may_take else "no"),
    Column[Explanation.AgentVerdict]("UNMET", lambda agent: "; ".join(each.message for each in agent.unmet)),
)
ENROLLMENT_TOKENS: Final = (
    Column[EnrollmentToken]("ID", lambda token: token.id),
    Column[EnrollmentToken]("USES LEFT", lambda token: str(token.uses_left)),
    Column[EnrollmentToken]("EXPIRES", lambda token: time_text(token.expire_time)),
    Column[EnrollmentToken]("CREATED", lambda token: time_text(token.create_time)),
)


def _sandbox(agent: Agent) -> str:
    level = agent.info.sandbox.level or Sandbox.L0
    if agent.sandbox_cap and agent.sandbox_cap < level:
        return f"{Sandbox.Level.Name(agent.sandbox_cap)} (says {Sandbox.Level.Name(level)})"
    return Sandbox.Level.Name(level)


AGENTS: Final = (
    Column[Agent]("NAME", lambda agent: agent.name),
    Column[Agent]("STATE", _agent_state),
    Column[Agent]("RUNNING", lambda agent: f"{agent.running}/{agent.info.slots}"),
    Column[Agent]("TAKES NOTHING", lambda agent: agent.unschedulable),
    Column[Agent]("LABELS", _labels),
    Column[Agent]("SANDBOX", _sandbox),
    Column[Agent]("PLUGINS", lambda agent: ",".join(agent.info.plugins) or "all"),
    Column[Agent]("VERSION", lambda agent: agent.info.version),
    Column[Agent]("LAST SEEN", lambda agent: time_text(agent.last_seen_time)),
    Column[Agent]("ID", lambda agent: agent.id),
)
API_KEYS: Final = (
    Column[ApiKey]("NAME", lambda key: key.name),
    Column[ApiKey]("PREFIX", lambda key: key.prefix),
    Column[ApiKey]("SCOPES", lambda key: ",".join(key.scopes)),
    Column[ApiKey]("EXPIRES", lambda key: time_text(key.expire_time)),
    Column[ApiKey]("USED", lambda key: time_text(key.use_time)),
    Column[ApiKey]("ID", lambda key: key.id),
)
USERS: Final = (
    Column[User]("EMAIL", lambda user: user.email),
    Column[User]("NAME", lambda user: user.name),
    Column[User]("ROLE", lambda user: User.Role.Name(user.role)),
    Column[User]("DISABLED", lambda user: "yes" if user.disabled else ""),
    Column[User]("ID", lambda user: user.id),
)
AUDIT_EVENTS: Final = (
    Column[AuditEvent]("TIME", lambda event: time_text(event.time)),
    Column[AuditEvent]("WHO", lambda event: event.user_email or event.user_id),
    Column[AuditEvent]("WITH", lambda event: AuditEvent.Credential.Name(event.credential)),
    Column[AuditEvent]("METHOD", lambda event: event.method),
    Column[AuditEvent]("TARGET", lambda event: ",".join(f"{key}={each}" for key, each in sorted(event.target.items()))),
    Column[AuditEvent]("ENDED", lambda event: event.code),
    Column[AuditEvent]("ADDRESS", lambda event: event.address),
    Column[AuditEvent]("REQUEST", lambda event: event.request_id),
)
