"""Commands of schedules: `towline schedule …`."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, cast

import typer

from towline.v1.schedule_pb2 import Schedule
from towline.v1.schedule_service_pb2 import DeleteScheduleResponse
from towline_cli import columns
from towline_cli.conversation import converse
from towline_cli.options import Output, OutputFormat, PageSize, PageToken, WorkflowId
from towline_cli.output import printable, show, show_list
from towline_cli.run_commands import input_value
from towline_sdk.documents import JsonInput
from towline_sdk.errors import InvalidArgumentError
from towline_sdk.pages import Page
from towline_sdk.schedule_calls import NO_LIMIT, NotGiven, ScheduleSettings

_NOTHING: Final = "none"
_PART: Final = re.compile(r"(\d+)([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

ScheduleId = Annotated[str, typer.Argument(help="Id of the schedule.", show_default=False)]
Cron = Annotated[str | None, typer.Option("--cron", help='Such as "30 2 * * mon-fri" or @hourly.')]
Every = Annotated[str | None, typer.Option("--every", help="Interval in place of --cron, such as 15m or 1h30m.")]
TimeZone = Annotated[str | None, typer.Option("--time-zone", help="IANA zone of --cron; default: UTC.")]
Input = Annotated[str | None, typer.Option("--input", "-i", help="JSON, or @FILE to read it from a file.")]
Version = Annotated[str | None, typer.Option("--version", help="Id of the version; default: pinned, else newest.")]
Priority = Annotated[int | None, typer.Option("--priority", min=-100, max=100, help="Of its runs.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="KEY=VALUE of its runs; may be repeated.")]
Overlap = Annotated[
    str | None, typer.Option("--overlap", help="While a run is open: SKIP, BUFFER_ONE, ALLOW_ALL, CANCEL_OTHER.")
]
Window = Annotated[str | None, typer.Option("--catch-up-window", help="What was held up longer is missed: 1h, 1d.")]
Limit = Annotated[int | None, typer.Option("--catch-up-limit", min=1, max=100, help="Times made up for at most.")]
Jitter = Annotated[str | None, typer.Option("--jitter", help="Start each run up to so much later: 30s, 5m.")]
Start = Annotated[str | None, typer.Option("--start", help="No time before, such as 2026-03-01T00:00:00Z.")]
End = Annotated[str | None, typer.Option("--end", help="No time after; none takes it away.")]
Note = Annotated[str | None, typer.Option("--note", help="Anything, such as why it is paused.")]

app = typer.Typer(help="Schedules, which start runs by themselves.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the schedule.", show_default=False)],
    workflow_id: WorkflowId,
    cron: Cron = None,
    every: Every = None,
    time_zone: TimeZone = None,
    run_input: Input = None,
    version: Version = None,
    priority: Priority = None,
    label: Labels = None,
    overlap: Overlap = None,
    catch_up_window: Window = None,
    catch_up_limit: Limit = None,
    jitter: Jitter = None,
    start: Start = None,
    end: End = None,
    note: Note = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not begin before it is resumed.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Create a schedule of a workflow."""
    settings = ScheduleSettings(
        cron=cron,
        interval=_duration(every, "--every"),
        time_zone=time_zone,
        version_id=version,
        input=_input(run_input),
        priority=priority,
        labels=_labels(label),
        overlap_policy=_overlap(overlap),
        catch_up_window=_duration(catch_up_window, "--catch-up-window"),
        catch_up_limit=catch_up_limit,
        jitter=_duration(jitter, "--jitter"),
        start_time=_time(start, "--start"),
        end_time=_time(end, "--end"),
        note=note,
    )
    show(converse(lambda client: client.schedules.create(name, workflow_id, settings, paused=paused)), output)


@app.command()
def update(
    schedule: ScheduleId,
    name: Annotated[str | None, typer.Option("--name", help="New name.")] = None,
    cron: Cron = None,
    every: Every = None,
    time_zone: TimeZone = None,
    run_input: Input = None,
    version: Version = None,
    priority: Priority = None,
    label: Labels = None,
    overlap: Overlap = None,
    catch_up_window: Window = None,
    catch_up_limit: Limit = None,
    jitter: Jitter = None,
    start: Start = None,
    end: End = None,
    note: Note = None,
    etag: Annotated[str, typer.Option("--etag", help="Change only the schedule that still has this etag.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Change what is given; the rest stays. A new expression counts from now on."""
    settings = ScheduleSettings(
        cron=cron,
        interval=_duration(every, "--every"),
        time_zone=time_zone,
        version_id=version,
        input=_input(run_input),
        priority=priority,
        labels=_labels(label),
        overlap_policy=_overlap(overlap),
        catch_up_window=_duration(catch_up_window, "--catch-up-window"),
        catch_up_limit=catch_up_limit,
        jitter=_duration(jitter, "--jitter"),
        start_time=_time(start, "--start"),
        end_time=_time(end, "--end"),
        note=note,
    )
    show(converse(lambda client: client.schedules.update(schedule, settings, name=name, etag=etag)), output)


@app.command("list")
def list_schedules(page_size: PageSize = 0, page_token: PageToken = "", output: Output = OutputFormat.TABLE) -> None:
    """List schedules, newest first."""
    answer = converse(lambda client: client.schedules.list(Page(page_size, page_token)))
    show_list(answer, answer.schedules, columns.SCHEDULES, output)


@app.command()
def get(schedule: ScheduleId, output: Output = OutputFormat.TABLE) -> None:
    """Show a schedule: its next times, what became of the last ones, and why nothing runs."""
    found = converse(lambda client: client.schedules.get(schedule))
    show(found, output, told_apart="recent")
    if output is OutputFormat.TABLE and found.recent:
        print()
        show_list(found, found.recent, columns.FIRINGS, output)


@app.command()
def pause(
    schedule: ScheduleId,
    note: Annotated[str, typer.Option("--note", help="Why.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Let no time come until the schedule is resumed; runs that are open go on."""
    show(converse(lambda client: client.schedules.pause(schedule, note)), output)


@app.command()
def resume(schedule: ScheduleId, output: Output = OutputFormat.TABLE) -> None:
    """Go on with the next time; those of the pause are not made up for."""
    show(converse(lambda client: client.schedules.resume(schedule)), output)


@app.command()
def trigger(schedule: ScheduleId, output: Output = OutputFormat.TABLE) -> None:
    """Start a run now, whether or not the schedule is paused or a run of it is open."""
    show(converse(lambda client: client.schedules.trigger(schedule)), output)


@app.command()
def backfill(
    schedule: ScheduleId,
    start: Annotated[str, typer.Option("--from", help="First time of the span.", show_default=False)],
    end: Annotated[str, typer.Option("--to", help="Last time of the span.", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Start a run for each time of a span in the past that has none."""
    first, last = _required_time(start, "--from"), _required_time(end, "--to")
    answer = converse(lambda client: client.schedules.backfill(schedule, first, last))
    show_list(answer, answer.started, columns.FIRINGS, output)


@app.command()
def delete(
    schedule: ScheduleId,
    etag: Annotated[str, typer.Option("--etag", help="Delete only the schedule that still has this etag.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Delete a schedule; its runs stay."""
    converse(lambda client: client.schedules.delete(schedule, etag=etag))
    show(DeleteScheduleResponse(), output)


@app.command()
def preview(
    cron: Cron = None,
    every: Every = None,
    time_zone: TimeZone = None,
    start: Start = None,
    end: End = None,
    count: Annotated[int, typer.Option("--count", min=0, max=100, help="How many times; 0 means 5.")] = 0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show the next times of an expression or an interval, without a schedule."""
    settings = ScheduleSettings(
        cron=cron,
        interval=_duration(every, "--every"),
        time_zone=time_zone,
        start_time=_time(start, "--start"),
        end_time=_time(end, "--end"),
    )
    answer = converse(lambda client: client.schedules.preview(settings, count))
    if output is not OutputFormat.TABLE:
        show(answer, output)
        return
    for time in answer.times:
        print(printable(time.ToJsonString()))


def _duration(text: str | None, option: str) -> timedelta | None:
    if text is None:
        return None
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or len(text) > 20:
        raise InvalidArgumentError(f"{option} {text} is no duration, such as 90s, 15m, 1h30m or 1d")
    return timedelta(seconds=sum(int(number) * _UNITS[unit] for number, unit in parts))


def _time(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    return NO_LIMIT if text == _NOTHING else _required_time(text, option)


def _required_time(text: str, option: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidArgumentError(f"{option} {text} is no time with its zone, such as 2026-03-01T00:00:00Z")
    return time


def _input(text: str | None) -> "JsonInput | NotGiven":
    return NotGiven.NOT_GIVEN if text is None else input_value(text)


def _labels(pairs: Sequence[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    for pair in pairs:
        if "=" not in pair:
            raise InvalidArgumentError(f"--label {pair} is not of the form KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _overlap(name: str | None) -> Schedule.OverlapPolicy | None:
    if name is None:
        return None
    known = Schedule.OverlapPolicy.keys()[1:]
    if name.upper() not in known:
        raise InvalidArgumentError(f"--overlap {name} is none of {', '.join(known)}")
    return cast("Schedule.OverlapPolicy", Schedule.OverlapPolicy.Value(name.upper()))
