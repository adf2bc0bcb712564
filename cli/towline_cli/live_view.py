"""How a run that goes on is shown on a terminal: a tree of its steps, redrawn, with the last log lines below each."""

import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Final, Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from towline.v1.run_pb2 import Event, LogLine, Run, Step
from towline_cli.output import STATE_STYLES, printable, seconds_text, styled
from towline_cli.progress import Progress, StepProgress
from towline_cli.views import View, log_text

SHOWN_LOG_LINES: Final = 10
LINES_BESIDE_STEPS: Final = SHOWN_LOG_LINES + 6
STATE_WIDTH: Final = 11
GLYPHS: Final[Mapping[Step.State, str]] = MappingProxyType(
    {
        Step.STATE_UNSPECIFIED: "?",
        Step.WAITING: "·",
        Step.READY: "○",
        Step.LEASED: "●",
        Step.SUCCEEDED: "✓",
        Step.FAILED: "✗",
        Step.TIMED_OUT: "✗",
        Step.CANCELLED: "✗",
        Step.SKIPPED: "-",
        Step.PARKED: "!",
    }
)
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
        """Takes the branches of the tree."""
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
    """Returns the run as a tree that fits a terminal of this height; each of the last log lines is below its step."""
    shown = _most_interesting(list(progress.steps.values()), max(height - LINES_BESIDE_STEPS, 3))
    hidden = len(progress.steps) - len(shown)
    below: dict[str, list[LogLine]] = {step.node_id: [] for step in shown}
    elsewhere: list[LogLine] = []
    for line in list(progress.lines)[-SHOWN_LOG_LINES:]:
        below.get(line.node_id, elsewhere).append(line)
    parts: list[RenderableType] = [_headline(progress, now)]
    widths = _widths(shown)
    for number, step in enumerate(shown, start=1):
        is_last = number == len(shown) and not hidden
        parts.append(_branch(step, now, "└─ " if is_last else "├─ ", widths))
        parts.extend(_log_line(line.text, "      " if is_last else "│     ") for line in below[step.node_id])
    if hidden:
        parts.append(Text(f"└─ … and {hidden} more steps", style="dim"))
    parts.extend(_log_line(log_text(line), "") for line in elsewhere)
    return Group(*parts)


def _headline(progress: Progress, now: float) -> Text:
    elapsed = "" if progress.started is None else seconds_text((progress.ended or now) - progress.started)
    done = f"{progress.ended_steps()}/{len(progress.steps)} steps"
    return Text("  ").join(
        [Text(f"run {progress.run_id}"), styled(Run.State.Name(progress.state)), Text(done), Text(elapsed)]
    )


def _widths(steps: list[StepProgress]) -> tuple[int, int]:
    names = max((cell_len(_name(step)) for step in steps), default=0)
    return names, max((cell_len(printable(step.type)) for step in steps), default=0)


def _branch(step: StepProgress, now: float, lead: str, widths: tuple[int, int]) -> Text:
    state, seconds = Step.State.Name(step.state), step.seconds(now)
    style = STATE_STYLES.get(state, "")
    line = Text(lead, style="dim", no_wrap=True, overflow="ellipsis")
    line.append(f"{GLYPHS[step.state]} ", style=style)
    line.append(set_cell_size(_name(step), widths[0] + 2), style="default")
    line.append(set_cell_size(printable(step.type), widths[1] + 2))
    line.append(state.ljust(STATE_WIDTH), style=style)
    line.append("" if seconds is None else f"{seconds_text(seconds)}  ", style="default")
    line.append(printable(step.error), style="red")
    return line


def _name(step: StepProgress) -> str:
    """Returns the name of a step, with the number of its attempt from the second one on."""
    return printable(step.node_id) + (f" #{step.attempt}" if step.attempt > 1 else "")


def _log_line(text: str, lead: str) -> Text:
    return Text(f"{lead}{printable(text)}", style="dim", no_wrap=True, overflow="ellipsis")


def _most_interesting(steps: list[StepProgress], limit: int) -> list[StepProgress]:
    if len(steps) <= limit:
        return steps
    ranks = {state: rank for rank, state in enumerate(INTEREST)}
    chosen = sorted(range(len(steps)), key=lambda index: (ranks.get(steps[index].state, len(ranks)), index))[:limit]
    return [steps[index] for index in sorted(chosen)]
