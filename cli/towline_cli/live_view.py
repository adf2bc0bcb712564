"""How a run that goes on is shown on a terminal: its steps in a table that is redrawn, its last log lines below."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from towline.v1.run_pb2 import Event, LogLine, Run, Step
from towline_cli.output import printable, seconds_text, styled
from towline_cli.progress import Progress, StepProgress
from towline_cli.views import View, log_text

SHOWN_LOG_LINES: Final = 10
LINES_BESIDE_STEPS: Final = SHOWN_LOG_LINES + 6
# Which steps are shown first when not all fit.
INTEREST: Final = (Step.LEASED, Step.FAILED, Step.TIMED_OUT, Step.PARKED, Step.READY, Step.SUCCEEDED)


class LiveView(View):
    """A picture of the run that is redrawn in place; the last one stays on the screen."""

    def __init__(self, run_id: str, console: Console) -> None:
        self._progress = Progress(run_id)
        self._console = console
        # Redrawn by `refresh` alone: a thread of its own would read the progress while it changes.
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refresh()
        self._live.stop()

    def expect(self, steps: Iterable[Step]) -> None:
        """Takes the rows of the table."""
        self._progress.expect(steps)

    def event(self, event: Event) -> None:
        """Takes the next event; the next `refresh` shows it."""
        self._progress.apply(event)

    def line(self, line: LogLine) -> None:
        """Takes the next log line; the next `refresh` shows it."""
        self._progress.lines.append(line)

    def refresh(self) -> None:
        """Redraws."""
        self._live.update(picture(self._progress, self._console.height, time.time()), refresh=True)


def picture(progress: Progress, height: int, now: float) -> RenderableType:
    """Returns the picture of a run that fits a terminal of this height."""
    shown = _most_interesting(list(progress.steps.values()), max(height - LINES_BESIDE_STEPS, 3))
    parts: list[RenderableType] = [_headline(progress, now), _steps_table(shown, now)]
    if hidden := len(progress.steps) - len(shown):
        parts.append(Text(f"… and {hidden} more steps", style="dim"))
    lines = list(progress.lines)[-SHOWN_LOG_LINES:]
    parts.extend(Text(log_text(line), style="dim", no_wrap=True, overflow="ellipsis") for line in lines)
    return Group(*parts)


def _headline(progress: Progress, now: float) -> Text:
    elapsed = "" if progress.started is None else seconds_text((progress.ended or now) - progress.started)
    done = f"{progress.ended_steps()}/{len(progress.steps)} steps"
    return Text("  ").join(
        [Text(f"run {progress.run_id}"), styled(Run.State.Name(progress.state)), Text(done), Text(elapsed)]
    )


def _steps_table(steps: list[StepProgress], now: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("NODE", "TYPE", "STATE", "ATTEMPT", "DURATION", ""):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for step in steps:
        seconds = step.seconds(now)
        table.add_row(
            Text(printable(step.node_id)),
            Text(printable(step.type)),
            styled(Step.State.Name(step.state)),
            str(step.attempt or ""),
            "" if seconds is None else seconds_text(seconds),
            Text(printable(step.error), style="red"),
        )
    return table


def _most_interesting(steps: list[StepProgress], limit: int) -> list[StepProgress]:
    if len(steps) <= limit:
        return steps
    ranks = {state: rank for rank, state in enumerate(INTEREST)}
    chosen = sorted(range(len(steps)), key=lambda index: (ranks.get(steps[index].state, len(ranks)), index))[:limit]
    return [steps[index] for index in sorted(chosen)]
