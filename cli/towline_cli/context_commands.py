"""Commands of contexts: `towline context …`. Tokens are kept, never shown."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from towline_cli import contexts
from towline_cli.contexts import Context, Contexts
from towline_cli.options import Output, OutputFormat
from towline_cli.output import show_rows
from towline_sdk.documents import Json

app = typer.Typer(help="Servers that are known by a name.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="Name of the context.", show_default=False)]


@app.command()
def add(
    name: Name,
    server: Annotated[
        str, typer.Option("--server", help="host:port, or https://host:port for TLS; replicas with commas.")
    ] = contexts.DEFAULT_SERVER,
    ca_file: Annotated[
        Path | None, typer.Option("--tls-ca", help="Certificates to verify the server with; default: the system's.")
    ] = None,
    token_stdin: Annotated[bool, typer.Option("--token-stdin", help="Read an access token or API key.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Add a context, or change it; the first one is used at once. Sign in with `towline --context NAME login`."""
    contexts.check_server(server)
    stored = contexts.read()
    token = sys.stdin.readline().strip() if token_stdin else _kept_token(stored, name, server)
    added = Context(name, server, str(ca_file.absolute()) if ca_file else "", token)
    current = stored.current if stored.known else name
    contexts.write(replace(stored.with_context(added), current=current))
    _show(contexts.read(), output)


@app.command()
def use(name: Name, output: Output = OutputFormat.TABLE) -> None:
    """Make a context the one that commands use."""
    stored = contexts.read()
    contexts.write(replace(stored, current=stored.named(name).name))
    _show(contexts.read(), output)


@app.command("list")
def list_contexts(output: Output = OutputFormat.TABLE) -> None:
    """List the contexts."""
    _show(contexts.read(), output)


@app.command()
def remove(name: Name, output: Output = OutputFormat.TABLE) -> None:
    """Forget a context with its token."""
    stored = contexts.read()
    gone = stored.named(name).name
    contexts.write(replace(stored, known={key: each for key, each in stored.known.items() if key != gone}))
    _show(contexts.read(), output)


def _kept_token(stored: Contexts, name: str, server: str) -> str:
    """A token stays with its server: a context that is pointed at another one loses it."""
    known = stored.known.get(name)
    return known.token if known and known.server == server else ""


def _show(stored: Contexts, output: OutputFormat) -> None:
    rows: list[dict[str, Json]] = [
        {
            "name": each.name,
            "server": each.server,
            "caFile": each.ca_file,
            "current": each.name == stored.current,
            "signedIn": bool(each.token),
        }
        for each in sorted(stored.known.values(), key=lambda each: each.name)
    ]
    show_rows("contexts", rows, output)
