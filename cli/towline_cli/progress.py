"""What is known of a run from its events and log lines so far. Pure: no I/O and no clock; views read it."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from towline.v1.run_pb2 import Event, LogLine, Run, Step
from towline_sdk.documents import to_json

LOG_LINES_KEPT: Final = 200

RUN_STATES: Final[Mapping[Event.Type, Run.State]] = MappingProxyType(
    {
        Event.RUN_CREATED: Run.PENDING,
        Event.RUN_STARTED: Run.RUNNING,
        Event.RUN_PAUSED: Run.PAUSED,
        Event.RUN_RESUMED: Run.RUNNING,
        Event.RUN_SUCCEEDED: Run.SUCCEEDED,
        Event.RUN_FAILED: Run.FAILED,
        Event.RUN_CANCELLED: Run.CANCELLED,
        Event.RUN_TIMED_OUT: Run.TIMED_OUT,
        Event.RUN_RETRIED: Run.PENDING,
    }
)
STEP_STATES: Final[Mapping[Event.Type, Step.State]] = MappingProxyType(
    {
        Event.STEP_READY: Step.READY,
        Event.STEP_OFFERED: Step.LEASED,
        Event.STEP_STARTED: Step.LEASED,
        Event.STEP_OFFER_EXPIRED: Step.READY,
        Event.STEP_RETRY_SCHEDULED: Step.READY,
        Event.STEP_SUCCEEDED: Step.SUCCEEDED,
        Event.STEP_FAILED: Step.FAILED,
        Event.STEP_SKIPPED: Step.SKIPPED,
        Event.STEP_CANCELLED: Step.CANCELLED,
        Event.STEP_TIMED_OUT: Step.TIMED_OUT,
        Event.STEP_PARKED: Step.PARKED,
        Event.STEP_RESET: Step.WAITING,
    }
)
ENDED: Final = frozenset({Step.SUCCEEDED, Step.FAILED, Step.SKIPPED, Step.CANCELLED, Step.TIMED_OUT})
NOT_SUCCEEDED: Final = frozenset({Event.STEP_ATTEMPT_FAILED, Event.STEP_ATTEMPT_LOST, Event.STEP_FAILED})


@dataclass(slots=True)
class StepProgress:
    """A step as far as its events tell; times are seconds since the epoch on the server's clock."""

    node_id: str
    type: str
    state: Step.State = Step.WAITING
    attempt: int = 0
    started: float | None = None
    ended: float | None = None
    error: str = ""

    def seconds(self, now: float) -> float | None:
        """Returns how long the newest attempt has been running, or took."""
        return None if self.started is None else max(0.0, (self.ended or now) - self.started)


@dataclass(slots=True)
class Progress:
    """A run as far as its events tell."""

    run_id: str
    state: Run.State = Run.PENDING
    started: float | None = None
    ended: float | None = None
    steps: dict[str, StepProgress] = field(default_factory=dict[str, StepProgress])
    lines: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES_KEPT))

    def expect(self, steps: Iterable[Step]) -> None:
        """Takes the order and types of the steps; their states come with the events."""
        self.steps = {step.node_id: StepProgress(step.node_id, step.type) for step in steps}

    def apply(self, event: Event) -> None:
        """Takes the next event."""
        time = event.create_time.ToNanoseconds() / 1e9
        if event.node_id:
            self._apply_to_step(event, time)
            return
        self.state = RUN_STATES.get(event.type, self.state)
        if event.type == Event.RUN_CREATED:
            self.started = time
        self.ended = time if self.state in (Run.SUCCEEDED, Run.FAILED, Run.CANCELLED, Run.TIMED_OUT) else None

    def ended_steps(self) -> int:
        """Returns how many steps have ended."""
        return sum(step.state in ENDED for step in self.steps.values())

    def _apply_to_step(self, event: Event, time: float) -> None:
        step = self.steps.setdefault(event.node_id, StepProgress(event.node_id, ""))
        step.state = STEP_STATES.get(event.type, step.state)
        step.attempt = event.attempt or step.attempt
        if event.type in (Event.STEP_STARTED, Event.STEP_RESET):
            step.started, step.ended, step.error = time if event.type == Event.STEP_STARTED else None, None, ""
        if step.state in ENDED or event.type in NOT_SUCCEEDED:
            step.ended = time
        if event.type in NOT_SUCCEEDED:
            step.error = error_text(event)


def error_text(event: Event) -> str:
    """Returns code and message of the failure that an event tells of, or nothing."""
    details = to_json(event).get("details")
    error = details.get("error") if isinstance(details, dict) else None
    if isinstance(error, dict):
        return ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))
    return "" if error is None else str(error)
