"""Commands of agents: `towline agent …`."""

import asyncio
from typing import Annotated, Final

import typer

from towline.v1.agent_pb2 import Agent
from towline_cli import columns
from towline_cli.conversation import converse
from towline_cli.options import Output, OutputFormat, PageSize, PageToken
from towline_cli.output import show, show_list
from towline_sdk.client import Client, Page

WAIT_SECONDS: Final = 1.0
"""Between two looks at an agent that is being waited for."""
AgentName = Annotated[str, typer.Argument(help="Name or id of the agent.", show_default=False)]

app = typer.Typer(help="Agents: machines that pull work.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_agents(page_size: PageSize = 0, page_token: PageToken = "", output: Output = OutputFormat.TABLE) -> None:
    """List agents by name (admins only)."""
    answer = converse(lambda client: client.agents.list(Page(page_size, page_token)))
    show_list(answer, answer.agents, columns.AGENTS, output)


@app.command()
def get(agent: AgentName, output: Output = OutputFormat.TABLE) -> None:
    """Show an agent (admins only)."""
    show(converse(lambda client: client.agents.get(agent)), output)


@app.command()
def drain(
    agent: AgentName,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Stay until it runs nothing.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Offer an agent nothing any more; what it runs goes on (admins only)."""

    async def talk(client: Client) -> Agent:
        found = await client.agents.drain(agent)
        while wait and found.running:
            await asyncio.sleep(WAIT_SECONDS)
            found = await client.agents.get(found.id)
        return found

    show(converse(talk), output)


@app.command()
def undrain(agent: AgentName, output: Output = OutputFormat.TABLE) -> None:
    """Offer steps to a drained agent again (admins only)."""
    show(converse(lambda client: client.agents.undrain(agent)), output)


@app.command()
def token(
    uses: Annotated[int, typer.Option("--uses", min=1, help="How many agents may enroll with it.")] = 1,
    lifetime_seconds: Annotated[int, typer.Option("--lifetime-seconds", min=1)] = 3600,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make an enrollment token (admins only); it is shown only here."""
    show(converse(lambda client: client.agents.create_token(uses, lifetime_seconds)), output)
