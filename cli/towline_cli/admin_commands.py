"""Commands for whoever runs the installation: `towline admin …`. They work on its database, not through its API."""

import typer

from towline_cli.options import DataDir, Output, OutputFormat, data_dir_settings
from towline_cli.processes import become

app = typer.Typer(help="The installation itself, on its own machine.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def audit(data_dir: DataDir = None, output: Output = OutputFormat.TABLE) -> None:
    """Check the invariants of every run, also beside a running control plane; exit code 1 if one is broken.

    The database is that of DATABASE_URL, else the embedded one in the data folder.
    """
    become("controlplane", data_dir_settings(data_dir), ".audit", "--output", output)
