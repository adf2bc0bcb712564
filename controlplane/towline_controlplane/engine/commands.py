"""What can happen to a run: the frozen vocabulary that goes into `advance`."""

from dataclasses import dataclass, field
from enum import StrEnum

from towline_controlplane.evidence import Evidence
from towline_controlplane.model import Failure, Usage


class Outcome(StrEnum):
    """How an agent says that an attempt ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    LOST = "LOST"
    """The agent had to leave the attempt: a loss, which costs no try."""


@dataclass(frozen=True, slots=True)
class ConfirmStart:
    """The holder of an offer has started the attempt."""

    node_id: str


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """The holder of an attempt reports its end; its lease has been found current."""

    node_id: str
    outcome: Outcome
    digest: str
    """Tells a repeat of this report from another result."""
    output: str | None = None
    """JSON text, for SUCCEEDED."""
    output_digest: str | None = None
    """Names the blob that holds a large output, instead of `output`."""
    failure: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    elapsed_us: int = 0
    """Time from the start of the process to its end; dates the start of an attempt that was not confirmed before."""
    retry_after_ms: int | None = None
    """Set by the plugin: replaces the computed backoff."""
    evidence: Evidence | None = None
    """For every outcome but SUCCEEDED."""
    sandbox_level: int | None = None
    """The sandbox that the attempt really had."""
    artifact_count: int = 0
    """Files that the attempt made, all of them stored."""


@dataclass(frozen=True, slots=True)
class ExpireOffer:
    """An offer was not confirmed in time."""

    node_id: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """An offer never left the control plane: the step is offered again after a delay, or fails with `failure`."""

    node_id: str
    delay_ms: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class LoseAttempt:
    """The agent of an attempt is gone, whether it had confirmed the start or not."""

    node_id: str
    cause: str


@dataclass(frozen=True, slots=True)
class ExpireQueueWait:
    """No agent took a READY step in time."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Admit:
    """The run has got the slot that it waited for."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing more is handed out until Resume; with `freeze` what runs stands still until then. The last one counts."""

    freeze: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """What became ready meanwhile is handed out."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Everything that is not held by an agent ends now, the rest when its holder answers."""


@dataclass(frozen=True, slots=True)
class ReachDeadline:
    """The run's time is over: it is stopped as by Cancel."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A run that did not succeed starts over from the steps that did not; the view holds all its steps."""


@dataclass(frozen=True, slots=True)
class EndRun:
    """Every step has ended: the run ends with the output that its mapping gives. The view holds what that reads."""


@dataclass(frozen=True, slots=True)
class Propagate:
    """These nodes have ended: their outgoing edges are decided. The view holds the targets."""

    ended: tuple[str, ...]


Command = (
    ConfirmStart
    | EndAttempt
    | ExpireOffer
    | TakeBack
    | LoseAttempt
    | ExpireQueueWait
    | Admit
    | Pause
    | Resume
    | Cancel
    | ReachDeadline
    | Retry
    | EndRun
    | Propagate
)
