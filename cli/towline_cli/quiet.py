"""`--quiet` for every command that prints a resource: its id and nothing else, for scripts."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from towline_cli.options import OutputFormat

_OUTPUT = "output"
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only.")]


def add_quiet(app: typer.Typer) -> None:
    """Gives the option to all commands of a tree that take `--output`."""
    for command in app.registered_commands:
        if command.callback and _OUTPUT in inspect.signature(command.callback).parameters:
            command.callback = _quietly(command.callback)
    for group in app.registered_groups:
        if group.typer_instance:
            add_quiet(group.typer_instance)


def _quietly(function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*, quiet: bool, **options: Any) -> Any:
        return function(**({**options, _OUTPUT: OutputFormat.ID} if quiet else options))

    added = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    # What typer reads: it follows neither `__wrapped__` nor the code.
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # type: ignore[attr-defined]
    return run
