"""Commands of API keys: `towline api-key …`. A key is shown once, when it is made."""

from typing import Annotated

import typer

from towline.v1.auth_service_pb2 import RevokeApiKeyResponse
from towline_cli import columns
from towline_cli.conversation import converse
from towline_cli.options import Output, OutputFormat, PageSize, PageToken
from towline_cli.output import show, show_list
from towline_sdk.pages import Page

app = typer.Typer(help="Keys with which machines act for you.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.", show_default=False)],
    scopes: Annotated[
        list[str], typer.Option("--scope", help="Such as runs:read, workflows:*, * or admin; may be repeated.")
    ],
    lifetime_seconds: Annotated[
        int | None, typer.Option("--lifetime-seconds", min=1, help="Default: it does not expire.")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make a key; it is shown only here. --quiet prints nothing else, for a pipe to `context add --token-stdin`."""
    show(converse(lambda client: client.auth.create_api_key(name, scopes, lifetime_seconds)), output)


@app.command("list")
def list_keys(page_size: PageSize = 0, page_token: PageToken = "", output: Output = OutputFormat.TABLE) -> None:
    """List your keys, newest first: what they may do and when they were used, never the keys."""
    answer = converse(lambda client: client.auth.api_keys(Page(page_size, page_token)))
    show_list(answer, answer.api_keys, columns.API_KEYS, output)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as it is listed.", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make a key useless, at once."""
    converse(lambda client: client.auth.revoke_api_key(key_id))
    show(RevokeApiKeyResponse(), output)
