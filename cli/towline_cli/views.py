"""How a run that goes on is shown without a terminal: plain lines, documents, or not at all."""

from collections.abc import Iterable, Mapping
from datetime import UTC
from types import MappingProxyType, TracebackType
from typing import Final, Self

from google.protobuf.timestamp_pb2 import Timestamp

from towline.v1.run_pb2 import Event, LogLine, LogsEnd, LogState, Step
from towline_cli.options import OutputFormat
from towline_cli.output import coloured, print_item, printable
from towline_cli.progress import error_text
from towline_sdk.documents import to_json

EVENT_WORDS: Final[Mapping[Event.Type, str]] = MappingProxyType(
    {
        Event.RUN_CREATED: "created",
        Event.RUN_STARTED: "started",
        Event.RUN_PAUSED: "paused",
        Event.RUN_RESUMED: "resumed",
        Event.RUN_CANCEL_REQUESTED: "is being cancelled",
        Event.RUN_SUCCEEDED: "SUCCEEDED",
        Event.RUN_FAILED: "FAILED",
        Event.RUN_CANCELLED: "CANCELLED",
        Event.RUN_TIMED_OUT: "TIMED_OUT",
        Event.STEP_STARTED: "started",
        Event.STEP_OFFER_EXPIRED: "offer expired",
        Event.STEP_ATTEMPT_FAILED: "attempt failed",
        Event.STEP_ATTEMPT_LOST: "attempt lost",
        Event.STEP_RETRY_SCHEDULED: "will be tried again",
        Event.STEP_SUCCEEDED: "SUCCEEDED",
        Event.STEP_FAILED: "FAILED",
        Event.STEP_SKIPPED: "SKIPPED",
        Event.STEP_CANCELLED: "CANCELLED",
        Event.STEP_TIMED_OUT: "TIMED_OUT",
        Event.STEP_PARKED: "PARKED: a person must decide",
        Event.RUN_QUEUED: "waits for a slot of its concurrency limit",
        Event.RUN_ADMITTED: "has got a slot",
        Event.RUN_DEADLINE_REACHED: "is past its deadline and is being stopped",
        Event.RUN_RETRIED: "is retried from its failed steps",
        Event.RUN_FROZEN: "is frozen: what runs stands still",
        Event.RUN_THAWED: "what runs goes on",
    }
)

LOG_WORDS: Final[Mapping[LogState.State, str]] = MappingProxyType(
    {
        LogState.GROWING: "is still running",
        LogState.ARRIVING: "still on the way",
        LogState.INCOMPLETE: "missing",
        LogState.MISMATCHED: "MISMATCH: what is stored is not what its agent has sent",
    }
)


class View:
    """Receives what happens in a run, in order, and shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def expect(self, steps: Iterable[Step]) -> None:
        """Takes the steps of the run, in the order of the DAG's nodes."""

    def event(self, event: Event) -> None:
        """Takes the next event."""

    def line(self, line: LogLine) -> None:
        """Takes the next log line."""

    def refresh(self) -> None:
        """Called several times a second."""


class PlainView(View):
    """A line for each event that matters to people and for each log line."""

    def event(self, event: Event) -> None:
        """Prints what happened and when."""
        if words := EVENT_WORDS.get(event.type):
            subject = f"{event.node_id}[{event.attempt}]" if event.attempt else event.node_id or "run"
            error = error_text(event)
            print(printable(f"{clock_text(event.create_time)} {subject} {words}{error and ': '}{error}"), flush=True)

    def line(self, line: LogLine) -> None:
        """Prints the line behind its step."""
        print(f"{clock_text(line.create_time)} {log_text(line)}", flush=True)


class ItemsView(View):
    """Each event as REST streams it, a document each; log lines have a command of their own."""

    def __init__(self, output: OutputFormat) -> None:
        self._output = output

    def event(self, event: Event) -> None:
        """Prints the event."""
        print_item(to_json(event), self._output)


def log_text(line: LogLine, *, colours: bool = False) -> str:
    """Returns a log line behind its step, unable to move the cursor; with colours those of the line."""
    head = printable(f"{line.node_id}[{line.attempt}] | ")
    return head + (coloured(line.text) if colours else printable(line.text))


def logs_end_lines(end: LogsEnd) -> list[str]:
    """Returns what there is to say of logs behind their last line: that they are complete, or what is missing."""
    if end.complete:
        return [f"logs complete: {end.stored_bytes} bytes of {end.attempts} attempts"]
    lines = [f"logs not complete: {end.stored_bytes} bytes of {end.attempts} attempts"]
    for each in end.incomplete:
        words = LOG_WORDS.get(each.log.state, "")
        lines.append(printable(f"{each.node_id}[{each.attempt}] {words}{''.join(map(_gap_text, each.log.missing))}"))
    return lines


def _gap_text(gap: LogState.Gap) -> str:
    return f", bytes {gap.start} to {gap.end}" if gap.end else f", what came after byte {gap.start}"


def clock_text(time: Timestamp) -> str:
    """Returns the local time of day, with milliseconds."""
    return time.ToDatetime(UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
