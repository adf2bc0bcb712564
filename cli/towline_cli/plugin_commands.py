"""Commands of the plugin registry: `towline plugin …`."""

from pathlib import Path
from typing import Annotated

import typer

from towline_cli import columns
from towline_cli.conversation import converse
from towline_cli.options import Output, OutputFormat, PageSize, PageToken
from towline_cli.output import show, show_list
from towline_sdk.bundle import pack
from towline_sdk.client import Page

app = typer.Typer(help="Plugins.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder with plugin.toml.", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Pack a folder and store it as a version of its plugin; the same files again change nothing."""
    bundle = pack(folder)
    show(converse(lambda client: client.plugins.push(bundle.data)), output)


@app.command("list")
def list_plugins(page_size: PageSize = 0, page_token: PageToken = "", output: Output = OutputFormat.TABLE) -> None:
    """List built-ins and plugins by name."""
    answer = converse(lambda client: client.plugins.list(Page(page_size, page_token)))
    show_list(answer, answer.plugins, columns.PLUGINS, output)


@app.command()
def get(
    plugin: Annotated[str, typer.Argument(help="Name or id.", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show a plugin with its versions."""
    show(converse(lambda client: client.plugins.get(plugin)), output)
