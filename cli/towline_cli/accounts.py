"""Commands of identity: `login`, `logout`, `register`, `whoami`."""

import sys
from dataclasses import replace
from typing import Annotated

import typer

from towline.v1.auth_service_pb2 import LoginResponse, LogoutResponse
from towline.v1.user_pb2 import User
from towline_cli.contexts import selected, sign_in, sign_out
from towline_cli.conversation import converse
from towline_cli.options import Output, OutputFormat
from towline_cli.output import show
from towline_sdk.client import Client
from towline_sdk.errors import InvalidArgumentError

Email = Annotated[str, typer.Option("--email", "-e", prompt="Email", show_default=False)]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]


def login(email: Email, password_stdin: PasswordStdin = False, output: Output = OutputFormat.TABLE) -> None:
    """Sign in; later commands act as this user on this server, which becomes the current context."""
    context = selected()
    password = read_password(from_stdin=password_stdin)

    async def talk(client: Client) -> LoginResponse:
        return await client.auth.login(email, password)

    answer = converse(talk, replace(context, token=""))
    sign_in(context, answer.access_token)
    show(answer.user, output)


def logout(output: Output = OutputFormat.TABLE) -> None:
    """Sign out: the token of the current context counts no more, here or elsewhere."""
    converse(lambda client: client.auth.logout())
    sign_out(selected())
    show(LogoutResponse(), output)


def register(
    email: Email,
    name: Annotated[str, typer.Option("--name", help="Name for people; default: the email.")] = "",
    password_stdin: PasswordStdin = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Register a user with the role USER."""
    password = read_password(from_stdin=password_stdin, confirm=True)

    async def talk(client: Client) -> User:
        return await client.auth.register(email, password, name or email)

    show(converse(talk), output)


def whoami(output: Output = OutputFormat.TABLE) -> None:
    """Show the signed-in user."""

    async def talk(client: Client) -> User:
        return await client.auth.me()

    show(converse(talk), output)


def read_password(*, from_stdin: bool, confirm: bool = False) -> str:
    """Returns a password from the terminal, without echo, or from standard input."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidArgumentError("no terminal to ask for the password: use --password-stdin")
    return typer.prompt("Password", hide_input=True, confirmation_prompt=confirm)
