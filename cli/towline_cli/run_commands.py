"""Commands of runs: `towline run …`."""

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from towline.v1.run_pb2 import LogsEnd, Run, Step
from towline.v1.run_service_pb2 import DeleteRunResponse
from towline_cli import columns
from towline_cli.certificates import attempt_lines
from towline_cli.conversation import converse
from towline_cli.exit_codes import ExitCode
from towline_cli.options import NodeId, Output, OutputFormat, PageSize, PageToken, RunId, WorkflowId
from towline_cli.output import print_item, printable, show, show_list, shows_colours
from towline_cli.views import View, log_text, logs_end_lines
from towline_cli.watching import view_for, watch
from towline_sdk.client import Client
from towline_sdk.documents import Json, parse_json, to_json
from towline_sdk.errors import InvalidArgumentError, InvalidDocumentError
from towline_sdk.pages import Page
from towline_sdk.run_calls import RunOptions

app = typer.Typer(help="Runs of workflows.", no_args_is_help=True, rich_markup_mode=None)

AttemptNumber = Annotated[int, typer.Option("--attempt", min=0, help="Number of the attempt; 0 means the newest.")]
RunInput = Annotated[str, typer.Option("--input", "-i", help="JSON, or @FILE to read it from a file.")]


@app.command()
def start(
    workflow_id: WorkflowId,
    run_input: RunInput = "null",
    version: Annotated[str, typer.Option("--version", help="Id of the version; default: pinned, else newest.")] = "",
    priority: Annotated[int, typer.Option("--priority", min=-100, max=100, help="Higher goes first.")] = 0,
    follow: Annotated[bool, typer.Option("--watch", "-w", help="Stay until it ends; exit 1 if not SUCCEEDED.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Start a run of a workflow."""
    value = input_value(run_input)
    options = RunOptions(version_id=version, priority=priority)

    async def talk(client: Client) -> Run:
        run = (await client.runs.start(workflow_id, value, options)).run
        if not follow:
            return run
        return await watch(client, run.id, view_for(run.id, output) if output is OutputFormat.TABLE else View())

    run = converse(talk)
    show(run, output)
    if follow:
        _exit_with_outcome(run)


@app.command("watch")
def watch_run(run_id: RunId, output: Output = OutputFormat.TABLE) -> None:
    """Follow a run until it ends; exit 1 if it did not succeed. json prints one event per line."""
    run = converse(lambda client: watch(client, run_id, view_for(run_id, output)))
    if output is OutputFormat.TABLE:
        show(run, output)
    _exit_with_outcome(run)


@app.command("list")
def list_runs(
    workflow_id: Annotated[str, typer.Option("--workflow", help="Only runs of this workflow.")] = "",
    state: Annotated[str, typer.Option("--state", help="Only runs in this state, such as RUNNING.")] = "",
    page_size: PageSize = 0,
    page_token: PageToken = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """List runs, newest first."""
    wanted = _state(state)
    answer = converse(lambda client: client.runs.list(workflow_id, wanted, Page(page_size, page_token)))
    show_list(answer, answer.runs, columns.RUNS, output)


@app.command()
def get(run_id: RunId, output: Output = OutputFormat.TABLE) -> None:
    """Show a run."""
    show(converse(lambda client: client.runs.get(run_id)), output)


@app.command()
def steps(run_id: RunId, node_id: NodeId = "", output: Output = OutputFormat.TABLE) -> None:
    """List the steps of a run, or show one with all its attempts."""
    if node_id:
        _show_step(converse(lambda client: client.runs.step(run_id, node_id)), output)
        return
    answer = converse(lambda client: client.runs.steps(run_id))
    show_list(answer, answer.steps, columns.STEPS, output)


def _show_step(step: Step, output: OutputFormat) -> None:
    show(step, output, told_apart="attempts")
    if output is OutputFormat.TABLE:
        for line in attempt_lines(step):
            print(line)


@app.command()
def explain(
    run_id: RunId,
    node_id: Annotated[str, typer.Argument(help="Id of the node.", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Tell why a step is not running: rule by rule, and agent by agent."""
    answer = converse(lambda client: client.runs.explain(run_id, node_id))
    if output is not OutputFormat.TABLE:
        show(answer, output)
        return
    print(printable(f"{answer.node_id}: {answer.summary}\n"))
    show_list(answer, answer.verdicts, columns.VERDICTS, output)
    if answer.agents:
        print()
        show_list(answer, answer.agents, columns.AGENT_VERDICTS, output)


@app.command()
def logs(
    run_id: RunId,
    node_id: NodeId = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the run ends.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Print what the steps of a run wrote, and on standard error whether that is all. json prints one line each."""
    colours, ends = shows_colours(), list[LogsEnd]()

    async def talk(client: Client) -> None:
        async for line in client.runs.logs(run_id, node_id, follow=follow, on_end=ends.append):
            if output is OutputFormat.TABLE:
                print(log_text(line, colours=colours), flush=True)
            else:
                print_item(to_json(line), output)

    converse(talk)
    for end in ends:
        print("\n".join(logs_end_lines(end)), file=sys.stderr)


@app.command()
def artifacts(
    run_id: RunId, node_id: NodeId = "", attempt: AttemptNumber = 0, output: Output = OutputFormat.TABLE
) -> None:
    """List the files that a run made."""
    answer = converse(lambda client: client.artifacts.list(run_id, node_id, attempt))
    show_list(answer, answer.artifacts, columns.ARTIFACTS, output)


@app.command()
def download(
    run_id: RunId,
    node_id: Annotated[str, typer.Argument(help="Id of the node.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Name of the artifact.", show_default=False)],
    target: Annotated[
        Path | None, typer.Option("--to", "-o", help="File to write; default: the last part of the name, here.")
    ] = None,
    attempt: AttemptNumber = 0,
    output: Annotated[OutputFormat, typer.Option("--output", help="json is the resource as REST prints it.")] = (
        OutputFormat.TABLE
    ),
) -> None:
    """Download a file that a run made; goes on where an earlier try stopped, and checks the digest."""
    last = name.rpartition("/")[2]
    if target is None and last in {"", ".", ".."}:
        raise InvalidArgumentError(f"{name} is not the name of a file: say where to with --to")
    show(
        converse(lambda client: client.artifacts.download(run_id, node_id, name, target or Path(last), attempt)), output
    )


@app.command()
def pause(
    run_id: RunId,
    freeze: Annotated[bool, typer.Option("--freeze", help="Stop what runs where it is.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Stop handing out steps; attempts that already run go on, or stand still with --freeze."""
    show(converse(lambda client: client.runs.pause(run_id, freeze=freeze)), output)


@app.command()
def resume(run_id: RunId, output: Output = OutputFormat.TABLE) -> None:
    """Hand out the steps of a paused run again."""
    show(converse(lambda client: client.runs.resume(run_id)), output)


@app.command()
def cancel(run_id: RunId, output: Output = OutputFormat.TABLE) -> None:
    """Cancel a run; attempts that run are stopped."""
    show(converse(lambda client: client.runs.cancel(run_id)), output)


@app.command()
def retry(run_id: RunId, output: Output = OutputFormat.TABLE) -> None:
    """Start a run that did not succeed over from its failed steps."""
    show(converse(lambda client: client.runs.retry(run_id)), output)


@app.command()
def delete(run_id: RunId, output: Output = OutputFormat.TABLE) -> None:
    """Delete a run that has ended, with its history, logs and outputs."""
    converse(lambda client: client.runs.delete(run_id))
    show(DeleteRunResponse(), output)


def input_value(option: str) -> Json:
    """Returns the JSON of an option, or of the file that it names; raises InvalidDocumentError."""
    return parse_json(*_input_text(option))


def _exit_with_outcome(run: Run) -> None:
    raise typer.Exit(ExitCode.SUCCESS if run.state == Run.SUCCEEDED else ExitCode.RUN_NOT_SUCCEEDED)


def _input_text(option: str) -> tuple[str, str]:
    if not option.startswith("@"):
        return option, "--input"
    file = option.removeprefix("@")
    try:
        return (sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")), file
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDocumentError(f"cannot read {file}: {error}") from None


def _state(name: str) -> Run.State:
    if not name:
        return Run.STATE_UNSPECIFIED
    if name.upper() not in Run.State.keys()[1:]:
        raise InvalidArgumentError(f"--state {name} is none of {', '.join(Run.State.keys()[1:])}")
    return cast("Run.State", Run.State.Value(name.upper()))
