"""The nouns of the control plane: frozen rows and state enums, with one meaning each.

Times are integer microseconds since the epoch, by the database's clock. Free JSON is kept as text. Imports nothing of
ours but how rows are made, how attempts die, what they use and the words of documents. The registry of plugins has its
nouns in `registry`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from towline_controlplane.evidence import Evidence
from towline_controlplane.frozen import frozen
from towline_controlplane.usage import Usage
from towline_dag.choices import DEFAULT_LIMITS, Limits, Network, SideEffects


class RunState(StrEnum):
    """States of a run."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


class StepState(StrEnum):
    """States of a step."""

    WAITING = "WAITING"
    READY = "READY"
    LEASED = "LEASED"
    PARKED = "PARKED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


class AttemptState(StrEnum):
    """States of an attempt."""

    OFFERED = "OFFERED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    LOST = "LOST"


class FailureClass(StrEnum):
    """What a retry can do about a failure."""

    TRANSIENT = "TRANSIENT"
    PERMANENT = "PERMANENT"


class EventType(StrEnum):
    """Kinds of lines in a run's history."""

    RUN_CREATED = "RUN_CREATED"
    RUN_STARTED = "RUN_STARTED"
    RUN_PAUSED = "RUN_PAUSED"
    RUN_RESUMED = "RUN_RESUMED"
    RUN_CANCEL_REQUESTED = "RUN_CANCEL_REQUESTED"
    RUN_SUCCEEDED = "RUN_SUCCEEDED"
    RUN_FAILED = "RUN_FAILED"
    RUN_CANCELLED = "RUN_CANCELLED"
    RUN_TIMED_OUT = "RUN_TIMED_OUT"
    STEP_READY = "STEP_READY"
    STEP_OFFERED = "STEP_OFFERED"
    STEP_STARTED = "STEP_STARTED"
    STEP_OFFER_EXPIRED = "STEP_OFFER_EXPIRED"
    STEP_ATTEMPT_FAILED = "STEP_ATTEMPT_FAILED"
    STEP_ATTEMPT_LOST = "STEP_ATTEMPT_LOST"
    STEP_RETRY_SCHEDULED = "STEP_RETRY_SCHEDULED"
    STEP_SUCCEEDED = "STEP_SUCCEEDED"
    STEP_FAILED = "STEP_FAILED"
    STEP_SKIPPED = "STEP_SKIPPED"
    STEP_CANCELLED = "STEP_CANCELLED"
    STEP_TIMED_OUT = "STEP_TIMED_OUT"
    STEP_PARKED = "STEP_PARKED"
    RUN_QUEUED = "RUN_QUEUED"
    RUN_ADMITTED = "RUN_ADMITTED"
    RUN_DEADLINE_REACHED = "RUN_DEADLINE_REACHED"
    RUN_RETRIED = "RUN_RETRIED"
    STEP_RESET = "STEP_RESET"
    RUN_FROZEN = "RUN_FROZEN"
    RUN_THAWED = "RUN_THAWED"


class Role(StrEnum):
    """What a user may do."""

    USER = "USER"
    ADMIN = "ADMIN"


@frozen
class Failure:
    """Why something failed. `code` is stable, `message` for people, `cause` the evidence."""

    kind: FailureClass
    code: str
    message: str
    cause: str = ""


@frozen
class Output:
    """What a step yielded: its JSON text, or the digest of the blob that holds it because it is large."""

    text: str | None = None
    digest: str | None = None


@frozen
class Lease:
    """An agent's claim on an attempt, as it presents it. `token_hash` is the SHA-256 of the token."""

    run_id: str
    node_id: str
    attempt: int
    epoch: int
    token_hash: str
    agent_id: str


@frozen
class Run:
    """One execution of a workflow version."""

    id: str
    workflow_id: str
    version_id: str
    owner_id: str
    state: RunState
    input: str
    priority: int
    labels: Mapping[str, str]
    cancel_requested: bool
    open_steps: int
    """Steps that are not terminal."""
    failed_steps: int
    """Steps that FAILED or TIMED_OUT and have no ON_FAILURE edge, or were CANCELLED by their agent alone."""
    event_count: int
    """Number of the newest event."""
    create_time: int
    start_time: int | None = None
    end_time: int | None = None
    error: Failure | None = None
    output: str | None = None
    """JSON text that the workflow's output mapping gave; None without a mapping, or while the run is open."""
    retries: int = 0
    """How often it was retried from its failed steps."""
    deadline: int | None = None
    deadline_reached: bool = False
    concurrency_group: str | None = None
    """The runs that share its limit; None means no limit."""
    concurrency_limit: int = 0
    """How many of its group go at a time."""
    admitted: bool = True
    """False while it waits for a slot of its group."""
    frozen: bool = False
    """It is PAUSED, and its attempts are to stand still."""
    schedule_id: str | None = None
    scheduled_time: int | None = None
    """The schedule that started it, and the time of the schedule that it was started for."""


@frozen
class Step:
    """A node in a run. One of several that a node was mapped to has its index in its id: `fetch[3]`."""

    run_id: str
    node_id: str
    position: int
    """Index of the node in the DAG."""
    state: StepState
    queue_id: str
    """Empty for a step that the control plane runs itself."""
    priority: int
    open_edges: int
    """Incoming edges whose source has not ended."""
    satisfied_edges: int = 0
    attempt: int = 0
    """Number of the newest attempt; 0 before the first hand-out."""
    next_attempt: int = 1
    """Number that the next hand-out carries; equals `attempt` after an offer that was not confirmed."""
    failures: int = 0
    losses: int = 0
    epoch: int = 0
    held: bool = False
    """READY but gated, because its run is paused or waits for a slot."""
    fair_key: int = 0
    """Order among steps of equal priority, fixed when the step is enqueued; the smallest goes first. 0: not yet."""
    not_before: int = 0
    """Not handed out before; 0 means at once."""
    queue_deadline: int = 0
    """Times out if it is not handed out until then; 0 means never."""
    config: str | None = None
    """Rendered config as JSON text; None while the DAG's own config applies unchanged."""
    output: str | None = None
    error: Failure | None = None
    agent_id: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    output_digest: str | None = None
    """Names the blob that holds a large output, instead of `output`."""
    attempt_base: int = 0
    """Number of the last attempt before the run was retried: failures, losses and the winner count from there."""
    map_index: int = -1
    """Which of the steps that a node was mapped to it is; -1 where a node is one step."""
    memory_limit_mb: int = 0
    """Raised after attempts that ran out of memory; 0 while the node's own limit applies."""
    artifact_count: int = 0
    """Artifacts of the last attempt that reported its end."""


@frozen
class Attempt:
    """One try of a step, and the lease on it while it is open."""

    run_id: str
    node_id: str
    number: int
    execution_key: str
    state: AttemptState
    epoch: int
    agent_id: str
    session_id: str
    token_hash: str
    create_time: int
    offer_expire_time: int
    start_time: int | None = None
    end_time: int | None = None
    error: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    report_digest: str | None = None
    """SHA-256 of the accepted report, so that its repeat can be told from another result."""
    evidence: Evidence | None = None
    """Of its death; None while it is open, and for one that SUCCEEDED."""
    memory_limit_mb: int = 0
    """Resident memory that it was allowed."""
    weight: int = 1
    """Slots that it takes on its agent."""
    sandbox_level: int | None = None
    """The sandbox that it really had, as its agent reported."""


@frozen
class Event:
    """One line of a run's history. `sequence` counts from 1 within the run, without gaps."""

    run_id: str
    sequence: int
    time: int
    type: EventType
    node_id: str = ""
    attempt: int = 0
    details: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class PluginRef:
    """The exact plugin that a node runs, fixed when its workflow version was created. A built-in has no digest."""

    name: str
    version: str
    digest: str
    entry_point: str
    side_effects: SideEffects
    timeout_ms: int = 0
    memory_limit_mb: int = 0
    network: Network = Network.FULL
    secrets: tuple[str, ...] = ()
    """Names of the secrets that it may be given."""
    min_sandbox: int = 0
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True)
class User:
    """A person who signs in."""

    id: str
    email: str
    name: str
    password_hash: str
    role: Role
    token_version: int
    create_time: int
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Workflow:
    """A named DAG with an owner."""

    id: str
    owner_id: str
    name: str
    description: str
    current_version: int
    current_version_id: str
    pinned_version_id: str | None
    create_time: int
    update_time: int


@dataclass(frozen=True, slots=True)
class WorkflowVersion:
    """An immutable DAG: its JSON text as given, and the plugin of each node by node id."""

    id: str
    workflow_id: str
    number: int
    dag: str
    plugins: Mapping[str, PluginRef]
    create_time: int


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An enrolled agent and its session. `renewals` counts the Syncs of all its sessions."""

    id: str
    name: str
    credential_hash: str
    create_time: int
    session_id: str | None = None
    slots: int = 0
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    version: str = ""
    hostname: str = ""
    platform: str = ""
    renewals: int = 0
    lease_expire_time: int = 0
    last_seen_time: int | None = None
    drained: bool = False
    """Gets no more steps."""
    sandbox_level: int = 0
    plugins: tuple[str, ...] = ()
    """The only plugins that it runs; empty means all."""
    protocol_version: int = 1
    """Of the agent protocol, as it speaks it."""
    lacking: tuple[str, ...] = ()
    """Built-ins whose libraries it does not have."""
    unschedulable: str | None = None
    """Why it takes no more steps for now, by its own word."""
    memory_bytes: int = 0
    """In all; 0: not known."""
    disabled: bool = False
    """Its credential is refused."""
    rotation_time: int = 0
    """When it is to get a new credential; 0: never."""
    next_credential_hash: str | None = None
    """Of a credential that takes the place of the other once it is used."""
    sandbox: str = "{}"
    """JSON text of what else it says of its sandbox."""
    network_isolation: str = "none"
    """How it keeps plugins off the network."""
    sandbox_cap: int | None = None
    """An admin believes it no more than this."""
