"""Commands about users, for admins: `towline admin user …`, `towline admin audit-log`."""

from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final

import typer

from towline.v1.user_pb2 import User
from towline_cli import columns
from towline_cli.accounts import PasswordStdin, read_password
from towline_cli.conversation import converse
from towline_cli.options import Output, OutputFormat, PageSize, PageToken
from towline_cli.output import show, show_list
from towline_sdk.pages import Page

app = typer.Typer(help="Users (admins only).", no_args_is_help=True, rich_markup_mode=None)

UserName = Annotated[str, typer.Argument(help="Email or id of the user.", show_default=False)]


class Role(StrEnum):
    """What a user may do."""

    USER = "USER"
    ADMIN = "ADMIN"


_ROLES: Final = MappingProxyType({Role.USER: User.USER, Role.ADMIN: User.ADMIN})


def list_audit_events(
    user: Annotated[str, typer.Option("--user", help="Only events of this user: email or id.")] = "",
    method: Annotated[str, typer.Option("--method", help="Only this method, such as RunService/StartRun.")] = "",
    page_size: PageSize = 0,
    page_token: PageToken = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """List who changed what, newest first (admins only)."""
    answer = converse(lambda client: client.audit.list(user, method, page=Page(page_size, page_token)))
    show_list(answer, answer.events, columns.AUDIT_EVENTS, output)


@app.command("list")
def list_users(page_size: PageSize = 0, page_token: PageToken = "", output: Output = OutputFormat.TABLE) -> None:
    """List users by email."""
    answer = converse(lambda client: client.users.list(Page(page_size, page_token)))
    show_list(answer, answer.users, columns.USERS, output)


@app.command()
def get(user: UserName, output: Output = OutputFormat.TABLE) -> None:
    """Show a user."""
    show(converse(lambda client: client.users.get(user)), output)


@app.command()
def role(
    user: UserName,
    name: Annotated[Role, typer.Argument(metavar="ROLE", show_default=False, case_sensitive=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Give a user another role; its sign-ins end, its API keys stay."""
    show(converse(lambda client: client.users.set_role(user, _ROLES[name])), output)


@app.command()
def password(user: UserName, password_stdin: PasswordStdin = False, output: Output = OutputFormat.TABLE) -> None:
    """Give a user who has lost it a new password; its sign-ins end."""
    new = read_password(from_stdin=password_stdin, confirm=True)
    show(converse(lambda client: client.users.set_password(user, new)), output)


@app.command()
def disable(user: UserName, output: Output = OutputFormat.TABLE) -> None:
    """Refuse a user with all its tokens and API keys; its runs go on."""
    show(converse(lambda client: client.users.disable(user)), output)


@app.command()
def enable(user: UserName, output: Output = OutputFormat.TABLE) -> None:
    """Let a disabled user sign in again."""
    show(converse(lambda client: client.users.enable(user)), output)


@app.command("sign-out")
def sign_out(
    user: UserName,
    api_keys: Annotated[bool, typer.Option("--api-keys", help="Revoke its API keys too.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """End all sign-ins of a user."""
    show(converse(lambda client: client.users.sign_out(user, api_keys=api_keys)), output)
