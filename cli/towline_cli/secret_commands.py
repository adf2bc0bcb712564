"""Commands of secrets: `towline secret …`. A value comes from a prompt, a file or a pipe, never from arguments."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from towline_cli import columns
from towline_cli.conversation import converse
from towline_cli.options import Output, OutputFormat, PageSize, PageToken
from towline_cli.output import show, show_list
from towline_sdk.errors import InvalidArgumentError

LARGEST_BYTES: Final = 64 * 1024 + 2
"""What the server takes, and a line break behind it."""
SecretName = Annotated[str, typer.Argument(help="Name, or id, of the secret.", show_default=False)]
PluginName = Annotated[str, typer.Argument(help="Name of the plugin.", show_default=False)]

app = typer.Typer(help="Secrets that plugins are given.", no_args_is_help=True, rich_markup_mode=None)


@app.command("set")
def set_secret(
    name: Annotated[str, typer.Argument(help="Capital letters, digits and _.", show_default=False)],
    from_file: Annotated[Path | None, typer.Option("--from-file", help="Read the value from this file.")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Give a secret a value, asked for without echo unless it comes from --from-file or a pipe.

    A line break at its end is left out.
    """
    value = _read_value(from_file)
    show(converse(lambda client: client.secrets.put(name, value)), output)


@app.command("list")
def list_secrets(page_size: PageSize = 0, page_token: PageToken = "", output: Output = OutputFormat.TABLE) -> None:
    """List names, versions and grants; values are never shown."""
    answer = converse(lambda client: client.secrets.list(page_size, page_token))
    show_list(answer, answer.secrets, columns.SECRETS, output)


@app.command()
def get(secret: SecretName, output: Output = OutputFormat.TABLE) -> None:
    """Show what is known of a secret, but its value."""
    show(converse(lambda client: client.secrets.get(secret)), output)


@app.command()
def delete(secret: SecretName) -> None:
    """Delete a secret with its grants; steps that need it fail from then on."""
    converse(lambda client: client.secrets.delete(secret))


@app.command()
def grant(secret: SecretName, plugin: PluginName, output: Output = OutputFormat.TABLE) -> None:
    """Let a plugin be given a secret, in your workflows."""
    show(converse(lambda client: client.secrets.grant(secret, plugin)), output)


@app.command()
def revoke(secret: SecretName, plugin: PluginName, output: Output = OutputFormat.TABLE) -> None:
    """Take a grant back."""
    show(converse(lambda client: client.secrets.revoke(secret, plugin)), output)


def _read_value(file: Path | None) -> str:
    if file is None and sys.stdin.isatty():
        return typer.prompt("Value", hide_input=True, confirmation_prompt=True)
    try:
        text = sys.stdin.read(LARGEST_BYTES) if file is None else _read_file(file)
    except UnicodeDecodeError:
        raise InvalidArgumentError("the value is not UTF-8: encode it, as with base64") from None
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {file}: {error.strerror}") from None
    return text.removesuffix("\n").removesuffix("\r")


def _read_file(file: Path) -> str:
    with file.open(encoding="utf-8", newline="") as opened:
        return opened.read(LARGEST_BYTES)
