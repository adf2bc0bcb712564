"""Commands for whoever runs the installation: `towline admin …`. They work on its database, not through its API."""

from pathlib import Path
from typing import Annotated

import typer

from towline_cli.options import Output, OutputFormat
from towline_cli.processes import become

app = typer.Typer(help="The installation itself, on its own machine.", no_args_is_help=True, rich_markup_mode=None)
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the embedded database.")]


@app.command()
def audit(data_dir: DataDir = None, output: Output = OutputFormat.TABLE) -> None:
    """Check the invariants of every run, also beside a running control plane; exit code 1 if one is broken.

    The database is that of DATABASE_URL, else the embedded one in the data folder.
    """
    settings = {} if data_dir is None else {"TOWLINE_DATA_DIR": str(data_dir)}
    become("controlplane", settings, ".audit", "--output", output)
