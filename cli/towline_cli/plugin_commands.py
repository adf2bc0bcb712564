"""Commands of the plugin registry: `towline plugin …`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from towline_cli import columns
from towline_cli.conversation import converse
from towline_cli.exit_codes import ExitCode
from towline_cli.options import Output, OutputFormat, PageSize, PageToken
from towline_cli.output import print_document, show, show_list
from towline_cli.processes import require
from towline_sdk import scaffold
from towline_sdk.bundle import pack
from towline_sdk.manifest import MANIFEST_NAME
from towline_sdk.pages import Page
from towline_sdk.plugin_schemas import schemas_of, write_schemas

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


class Language(StrEnum):
    """What a template is written in."""

    PYTHON = "python"
    BASH = "bash"
    NODE = "node"
    GO = "go"


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the plugin.", show_default=False)],
    language: Annotated[Language, typer.Option(help="What it is written in.")] = Language.PYTHON,
    folder: Annotated[Path | None, typer.Option("--dir", help="New folder; default: the name.")] = None,
) -> None:
    """Make the folder of a new plugin, with a first version that works and its tests."""
    target = folder or Path(name)
    for file in scaffold.create(target, name, language):
        print(file)
    build = "./build.sh, then " if language is Language.GO else ""
    print(f"next: {build}towline plugin test {target}", file=sys.stderr)


@app.command()
def schema(
    folder: Annotated[Path, typer.Argument(help="Folder with plugin.toml.", show_default=False)],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if something would change.")] = False,
) -> None:
    """Write the schemas of a Python plugin into plugin.toml, from the types of its entry point (`@plugin`)."""
    if check:
        manifest = pack(folder).manifest
        changed = any(getattr(manifest, name) != written for name, written in schemas_of(folder).items())
    else:
        changed = write_schemas(folder)
    print(f"{folder / MANIFEST_NAME} {'is not what the types say' if check and changed else 'is up to date'}")
    if check and changed:
        raise typer.Exit(ExitCode.RUN_NOT_SUCCEEDED)


@app.command("test")
def conform(
    folder: Annotated[Path, typer.Argument(help="Folder with plugin.toml.", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Check that a plugin does what plugins must: manifest, schemas, packing, and its cases in tests/*.json."""
    require("agent")
    # Only who tests plugins pays for what judges schemas.
    from towline_sdk.testing import plugin_checks

    results = [(check.name, check.problem()) for check in plugin_checks(folder)]
    if output is not OutputFormat.TABLE:
        print_document([{"check": name, "problem": problem} for name, problem in results], output)
    else:
        for name, problem in results:
            print(f"{'ok  ' if problem is None else 'FAIL'} {name}{'' if problem is None else f': {problem}'}")
    if any(problem is not None for _, problem in results):
        raise typer.Exit(ExitCode.RUN_NOT_SUCCEEDED)
