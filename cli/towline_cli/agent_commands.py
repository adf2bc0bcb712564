"""Commands of agents: `towline agent …`."""

from pathlib import Path
from typing import Annotated

import typer

from towline_cli import columns
from towline_cli.conversation import converse
from towline_cli.options import Output, OutputFormat, PageSize, PageToken
from towline_cli.output import show, show_list
from towline_cli.processes import become
from towline_sdk.client import Page

app = typer.Typer(help="Agents: machines that pull work.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def run(
    server: Annotated[str, typer.Option("--server", help="HOST:PORT of the control plane, or several: a:1,b:2.")] = "",
    name: Annotated[str, typer.Option("--name", help="Unique name; default: the host's.")] = "",
    slots: Annotated[int, typer.Option("--slots", min=0, help="Attempts at the same time.")] = 0,
    labels: Annotated[str, typer.Option("--labels", help="k=v,k=v: matched by nodes.")] = "",
    folder: Annotated[str, typer.Option("--dir", help="Folder of its state.")] = "",
    token_file: Annotated[Path | None, typer.Option("--enrollment-token-file")] = None,
) -> None:
    """Run an agent on this machine. Options override the environment (TOWLINE_AGENT_*, TOWLINE_SERVER)."""
    settings = {
        "TOWLINE_SERVER": server,
        "TOWLINE_AGENT_NAME": name,
        "TOWLINE_AGENT_SLOTS": str(slots or ""),
        "TOWLINE_AGENT_LABELS": labels,
        "TOWLINE_AGENT_DIR": folder,
        "TOWLINE_ENROLLMENT_TOKEN_FILE": str(token_file or ""),
    }
    become("agent", {name: value for name, value in settings.items() if value})


@app.command("list")
def list_agents(page_size: PageSize = 0, page_token: PageToken = "", output: Output = OutputFormat.TABLE) -> None:
    """List agents by name (admins only)."""
    answer = converse(lambda client: client.agents.list(Page(page_size, page_token)))
    show_list(answer, answer.agents, columns.AGENTS, output)


@app.command()
def token(
    uses: Annotated[int, typer.Option("--uses", min=1, help="How many agents may enroll with it.")] = 1,
    lifetime_seconds: Annotated[int, typer.Option("--lifetime-seconds", min=1)] = 3600,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make an enrollment token (admins only); it is shown only here."""
    show(converse(lambda client: client.agents.create_token(uses, lifetime_seconds)), output)
