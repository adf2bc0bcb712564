"""Commands of agents: `towline agent …`."""

import asyncio
import time
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final

import typer

from towline.v1.agent_pb2 import Agent
from towline.v1.sandbox_pb2 import Sandbox
from towline_cli import columns
from towline_cli.conversation import converse
from towline_cli.exit_codes import ExitCode
from towline_cli.options import Output, OutputFormat, PageSize, PageToken
from towline_cli.output import show, show_list
from towline_sdk.client import Client
from towline_sdk.pages import Page

WAIT_SECONDS: Final = 1.0
"""Between two looks at an agent that is being waited for."""
AgentName = Annotated[str, typer.Argument(help="Name or id of the agent.", show_default=False)]


class Cap(StrEnum):
    """What may be believed at most."""

    L0 = "L0"
    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    L4 = "L4"
    NONE = "none"


_CAPS: Final = MappingProxyType(
    {
        Cap.L0: Sandbox.L0,
        Cap.L1: Sandbox.L1,
        Cap.L2: Sandbox.L2,
        Cap.L3: Sandbox.L3,
        Cap.L4: Sandbox.L4,
        Cap.NONE: Sandbox.LEVEL_UNSPECIFIED,
    }
)

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
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most; 0: no limit.")] = 0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Offer an agent nothing any more; what it runs goes on (admins only). Exit code 6: it still ran something."""

    async def talk(client: Client) -> Agent:
        found = await client.agents.drain(agent)
        return await _idle(client, found, timeout) if wait else found

    found = converse(talk)
    show(found, output)
    if wait and found.running:
        raise typer.Exit(ExitCode.OTHER)


async def _idle(client: Client, agent: Agent, seconds: float) -> Agent:
    """Waits until an agent runs nothing, or the time is over, and says on standard error whenever it runs less."""
    said, until = None, time.monotonic() + seconds
    while agent.running and (not seconds or time.monotonic() < until):
        if agent.running != said:
            said = agent.running
            typer.echo(f"{agent.name} still runs {said}", err=True)
        await asyncio.sleep(WAIT_SECONDS)
        agent = await client.agents.get(agent.id)
    return agent


@app.command()
def disable(agent: AgentName, output: Output = OutputFormat.TABLE) -> None:
    """Refuse an agent's credential; what it runs goes elsewhere (admins only)."""
    show(converse(lambda client: client.agents.disable(agent)), output)


@app.command()
def enable(agent: AgentName, output: Output = OutputFormat.TABLE) -> None:
    """Accept a disabled agent's credential again; start its process then (admins only)."""
    show(converse(lambda client: client.agents.enable(agent)), output)


@app.command()
def rotate(agent: AgentName, output: Output = OutputFormat.TABLE) -> None:
    """Give an agent a new credential; the old one counts until the new one has been used (admins only)."""
    show(converse(lambda client: client.agents.rotate(agent)), output)


@app.command("tokens")
def list_tokens(output: Output = OutputFormat.TABLE) -> None:
    """List the enrollment tokens that may still be used (admins only)."""
    answer = converse(lambda client: client.agents.tokens())
    show_list(answer, answer.tokens, columns.ENROLLMENT_TOKENS, output)


@app.command("revoke-token")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="Id of the token, as it is listed.", show_default=False)],
) -> None:
    """Make an enrollment token useless; agents that enrolled with it stay (admins only)."""
    converse(lambda client: client.agents.revoke_token(token_id))


@app.command()
def undrain(agent: AgentName, output: Output = OutputFormat.TABLE) -> None:
    """Offer steps to a drained agent again (admins only)."""
    show(converse(lambda client: client.agents.undrain(agent)), output)


@app.command()
def cap(
    agent: AgentName,
    level: Annotated[Cap, typer.Argument(help="The strongest sandbox to believe it; `none`: whatever it says.")],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Believe an agent no stronger sandbox than this, whatever it says of itself (admins only)."""
    show(converse(lambda client: client.agents.cap(agent, _CAPS[level])), output)


@app.command()
def token(
    uses: Annotated[int, typer.Option("--uses", min=1, help="How many agents may enroll with it.")] = 1,
    lifetime_seconds: Annotated[int, typer.Option("--lifetime-seconds", min=1)] = 3600,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make an enrollment token (admins only); it is shown only here."""
    show(converse(lambda client: client.agents.create_token(uses, lifetime_seconds)), output)
