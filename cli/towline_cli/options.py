"""Options and arguments that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class OutputFormat(StrEnum):
    """How a command prints its result."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    ID = "id"


class ProcessOutput(StrEnum):
    """How a process that a command becomes prints its result."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[
    OutputFormat,
    typer.Option("--output", "-o", help="json and yaml are the resource as REST has it, id is what names it."),
]
ProcessOutputOption = Annotated[ProcessOutput, typer.Option("--output", "-o")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the embedded database.")]
PageSize = Annotated[int, typer.Option("--page-size", min=0, help="Items at most; 0 means the server's default.")]
PageToken = Annotated[str, typer.Option("--page-token", help="nextPageToken of the page before.")]
WorkflowId = Annotated[str, typer.Argument(help="Id of the workflow.", show_default=False)]
RunId = Annotated[str, typer.Argument(help="Id of the run.", show_default=False)]
NodeId = Annotated[str, typer.Option("--node", help="Only this node.")]
WorkflowFile = Annotated[
    Path,
    typer.Option(
        "--file",
        "-f",
        help="JSON or YAML: {name, description, dag} or {nodes, edges}; - reads stdin.",
        show_default=False,
    ),
]


def data_dir_settings(data_dir: Path | None) -> dict[str, str]:
    """Returns the settings of a process that works on the database of a data folder."""
    return {} if data_dir is None else {"TOWLINE_DATA_DIR": str(data_dir)}
