"""Commands for whoever runs the installation: `towline admin …`."""

import typer

from towline_cli import user_commands
from towline_cli.conversation import converse
from towline_cli.options import (
    DataDir,
    Output,
    OutputFormat,
    ProcessOutput,
    ProcessOutputOption,
    data_dir_settings,
)
from towline_cli.output import show
from towline_cli.processes import become

app = typer.Typer(help="The installation itself, on its own machine.", no_args_is_help=True, rich_markup_mode=None)


secrets_app = typer.Typer(help="The keys of the stored secrets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(secrets_app, name="secrets")
app.add_typer(user_commands.app, name="user")
app.command("audit-log")(user_commands.list_audit_events)


@secrets_app.command()
def rotate(output: Output = OutputFormat.TABLE) -> None:
    """Encrypt all secrets with the first key of TOWLINE_SECRETS_KEY, through the API of the running control plane."""
    show(converse(lambda client: client.secrets.rotate()), output)


@app.command()
def audit(data_dir: DataDir = None, output: ProcessOutputOption = ProcessOutput.TABLE) -> None:
    """Check the invariants of every run, also beside a running control plane; exit code 1 if one is broken.

    The database is that of DATABASE_URL, else the embedded one in the data folder.
    """
    become("controlplane", data_dir_settings(data_dir), ".audit", "--output", output)
