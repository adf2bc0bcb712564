"""The tree of commands of `towline`."""

from collections.abc import Callable
from importlib import metadata
from typing import Annotated

import typer

from towline_cli import (
    accounts,
    admin_commands,
    agent_commands,
    api_key_commands,
    context_commands,
    contexts,
    plugin_commands,
    run_commands,
    schedule_commands,
    secret_commands,
    workflow_commands,
)
from towline_cli.exit_codes import EXPLAINED
from towline_cli.host_commands import HOST_COMMANDS, HostCommand
from towline_cli.options import (
    DataDir,
    Output,
    OutputFormat,
    ProcessOutput,
    ProcessOutputOption,
    data_dir_settings,
)
from towline_cli.output import print_document
from towline_cli.processes import DISTRIBUTION, become
from towline_cli.quiet import add_quiet
from towline_cli.up import up

app = typer.Typer(
    name="towline",
    epilog=EXPLAINED,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(epilog=EXPLAINED)(accounts.login)
app.command(epilog=EXPLAINED)(accounts.logout)
app.command(epilog=EXPLAINED)(accounts.register)
app.command(epilog=EXPLAINED)(accounts.whoami)
app.add_typer(context_commands.app, name="context", epilog=EXPLAINED)
app.add_typer(workflow_commands.app, name="workflow", epilog=EXPLAINED)
app.add_typer(run_commands.app, name="run", epilog=EXPLAINED)
app.add_typer(schedule_commands.app, name="schedule", epilog=EXPLAINED)
app.add_typer(plugin_commands.app, name="plugin", epilog=EXPLAINED)
app.add_typer(secret_commands.app, name="secret", epilog=EXPLAINED)
app.add_typer(api_key_commands.app, name="api-key", epilog=EXPLAINED)
app.add_typer(agent_commands.app, name="agent", epilog=EXPLAINED)
app.add_typer(admin_commands.app, name="admin", epilog=EXPLAINED)
app.command(epilog=EXPLAINED)(up)


@app.callback()
def options(
    context: Annotated[str, typer.Option("--context", help="Context to use; also TOWLINE_CONTEXT.")] = "",
    server: Annotated[
        str, typer.Option("--server", help="Server to use: host:port, https://host:port; also TOWLINE_SERVER.")
    ] = "",
    ca_file: Annotated[
        str, typer.Option("--tls-ca", help="Certificates to verify the server with; also TOWLINE_TLS_CA.")
    ] = "",
) -> None:
    """Towline runs workflows on machines that pull their work."""
    contexts.ask_for(context, server, ca_file)


def _handed_over(command: HostCommand) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        become("agent", {}, command.module, *context.args)

    return run


GROUPS = {"agent": agent_commands.app, "plugin": plugin_commands.app}
for _each in HOST_COMMANDS:
    GROUPS.get(_each.words[0], app).command(
        _each.words[-1],
        help=_each.help,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_handed_over(_each))


@app.command(epilog=EXPLAINED)
def controlplane() -> None:
    """Run a control plane; settings come from the environment."""
    become("controlplane", {})


@app.command(epilog=EXPLAINED)
def gateway() -> None:
    """Run a REST gateway; settings come from the environment."""
    become("gateway", {})


@app.command(epilog=EXPLAINED)
def migrate(data_dir: DataDir = None, output: ProcessOutputOption = ProcessOutput.TABLE) -> None:
    """Bring the database to the newest schema; a control plane does so itself when it starts.

    The database is that of DATABASE_URL, else the embedded one in the data folder.
    """
    become("controlplane", data_dir_settings(data_dir), ".migrate", "--output", output)


@app.command(epilog=EXPLAINED)
def version(output: Output = OutputFormat.TABLE) -> None:
    """Print the version."""
    number = metadata.version(DISTRIBUTION)
    if output is OutputFormat.TABLE:
        print(number)
    else:
        print_document({"version": number}, output)


add_quiet(app)
