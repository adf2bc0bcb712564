"""What the demo shows: live lines while a run goes on, and a table of its steps when it has ended."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.run_follower import Happening

SHOWN_EVENTS = {
    "RUN_CREATED": ("created", "bold"),
    "RUN_SUCCEEDED": ("SUCCEEDED", "bold green"),
    "RUN_FAILED": ("FAILED", "bold red"),
    "RUN_CANCELLED": ("CANCELLED", "bold magenta"),
    "RUN_TIMED_OUT": ("TIMED_OUT", "bold red"),
    "STEP_STARTED": ("started", "cyan"),
    "STEP_ATTEMPT_FAILED": ("attempt failed", "yellow"),
    "STEP_ATTEMPT_LOST": ("attempt lost", "yellow"),
    "STEP_RETRY_SCHEDULED": ("will be tried again", "yellow"),
    "STEP_SUCCEEDED": ("SUCCEEDED", "green"),
    "STEP_FAILED": ("FAILED", "red"),
    "STEP_SKIPPED": ("SKIPPED", "dim"),
    "STEP_TIMED_OUT": ("TIMED_OUT", "red"),
}
STATE_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "SKIPPED": "dim", "TIMED_OUT": "red"}
TITLES = ("step", "type", "state", "attempt", "duration", "output")
TABLE_BORDERS = 3 * len(TITLES) + 1
SHORTEST_OUTPUT = 20
LONGEST_OUTPUT = 300


class DemoView:
    """Writes to one console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, message: str) -> None:
        """Writes a line about the demo itself."""
        self._console.print(Text(message))

    def begin(self, title: str) -> None:
        """Begins the part of an example."""
        self._console.rule(title, align="left")

    def happening(self, happening: Happening) -> None:
        """Writes an event that matters to people, or a log line."""
        data = happening.data
        if happening.kind == "line":
            subject = f"{data['nodeId']}[{data['attempt']}]"
            self._line(data["createTime"], subject, f"| {data['text']}", "dim")
        elif data["type"] in SHOWN_EVENTS:
            words, style = SHOWN_EVENTS[data["type"]]
            subject = f"{data['nodeId']}[{data['attempt']}]" if data["attempt"] else data["nodeId"] or "run"
            error = data.get("details", {}).get("error")
            self._line(data["createTime"], subject, f"{words}: {error['message']}" if error else words, style)

    def result(self, run: dict[str, Any], steps: Iterable[dict[str, Any]]) -> None:
        """Writes the table of a run that has ended."""
        rows = [_row(step) for step in steps]
        widths = [max(map(len, cells)) for cells in zip(TITLES, *rows, strict=True)]
        output_width = max(self._console.width - sum(widths[:-1]) - TABLE_BORDERS, SHORTEST_OUTPUT)
        table = Table(title=f"run {run['id']}  {run['state']}  {_duration(run)}", title_justify="left")
        for title, width in zip(TITLES, [*widths[:-1], min(widths[-1], output_width)], strict=True):
            table.add_column(title, no_wrap=True, overflow="ellipsis", width=width)
        for row in rows:
            table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
        self._console.print(table)

    def _line(self, time: str, subject: str, words: str, style: str) -> None:
        clock = datetime.fromisoformat(time).astimezone().strftime("%H:%M:%S.%f")[:-3]
        self._console.print(Text(f"{clock} {subject:<14} ").append(words, style), soft_wrap=True)


def _row(step: dict[str, Any]) -> tuple[str, ...]:
    output = json.dumps(step["output"], ensure_ascii=False)[:LONGEST_OUTPUT] if "output" in step else ""
    if step.get("error"):
        output = f"{step['error']['code']}: {step['error']['message']}"
    return (step["nodeId"], step["type"], step["state"], str(step["attempt"] or ""), _duration(step), output)


def _duration(entry: dict[str, Any]) -> str:
    if "startTime" not in entry or "endTime" not in entry:
        return ""
    start, end = (datetime.fromisoformat(entry[name]) for name in ("startTime", "endTime"))
    return f"{(end - start).total_seconds():.2f} s"
