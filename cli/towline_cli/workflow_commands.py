"""Commands of workflows: `towline workflow …`."""

import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from towline.v1.workflow_service_pb2 import DeleteWorkflowResponse
from towline_cli import columns, workflow_files
from towline_cli.conversation import converse
from towline_cli.exit_codes import ExitCode
from towline_cli.options import Output, OutputFormat, PageSize, PageToken, WorkflowFile, WorkflowId
from towline_cli.output import print_document, show, show_list
from towline_cli.places import nearest
from towline_sdk.documents import NO_POLICIES, Json
from towline_sdk.errors import InvalidArgumentError
from towline_sdk.pages import Page

app = typer.Typer(help="Workflows and their versions.", no_args_is_help=True, rich_markup_mode=None)
versions_app = typer.Typer(help="Versions of a workflow.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(versions_app, name="version")

Name = Annotated[str, typer.Option("--name", help="Overrides the name in the file.")]
VersionId = Annotated[str, typer.Argument(help="Id of the version.", show_default=False)]


@app.command()
def create(file: WorkflowFile, name: Name = "", output: Output = OutputFormat.TABLE) -> None:
    """Create a workflow from a file; what is wrong with it is shown at its line."""
    written = workflow_files.read(file)
    document = written.workflow()
    title = name or document.name
    if not title:
        raise InvalidArgumentError(f"{file} holds no name: give one with --name")
    with written.pointing():
        made = converse(lambda client: client.workflows.create(replace(document, name=title)))
    show(made, output)


@app.command()
def validate(file: WorkflowFile, output: Output = OutputFormat.TABLE) -> None:
    """Check a workflow file without a server, by the server's own rules; exit code 2 if something is wrong with it.

    Plugins that are not built in are only listed: whether they exist, and what their configs must be, a server knows.
    """
    # Only who validates pays for what compiles expressions.
    from towline_sdk.validation import examine

    written = workflow_files.read(file)
    found = examine(written.document)
    if output is not OutputFormat.TABLE:
        wrong: list[Json] = [
            {"field": each.field, "message": each.message, **asdict(nearest(written.places, each.field))}
            for each in found.wrong
        ]
        print_document({"valid": not wrong, "violations": wrong, "plugins": list(found.plugins)}, output)
    elif not found.wrong:
        print(f"{written.name} is valid")
        if found.plugins:
            print(f"not checked without a server: {', '.join(found.plugins)}", file=sys.stderr)
    else:
        raise written.refusal(found.wrong)
    if found.wrong:
        raise typer.Exit(ExitCode.INVALID_INPUT)


@app.command("list")
def list_workflows(page_size: PageSize = 0, page_token: PageToken = "", output: Output = OutputFormat.TABLE) -> None:
    """List workflows, newest first."""
    answer = converse(lambda client: client.workflows.list(Page(page_size, page_token)))
    show_list(answer, answer.workflows, columns.WORKFLOWS, output)


@app.command()
def get(workflow_id: WorkflowId, output: Output = OutputFormat.TABLE) -> None:
    """Show a workflow with its DAG."""
    show(converse(lambda client: client.workflows.get(workflow_id)), output)


@app.command()
def update(
    workflow_id: WorkflowId,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Workflow file; its DAG is a new version.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="New name.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="New description.")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Change name or description, or make a new version from a file; options beat the file."""
    written = workflow_files.read(file) if file else None
    document = written.workflow() if written else None
    if document:
        name = name if name is not None else document.name or None
        description = description if description is not None else document.description or None
    if name is None and description is None and document is None:
        raise InvalidArgumentError("nothing to change: give --file, --name or --description")
    dag, policies = (document.dag, document.policies) if document else (None, NO_POLICIES)
    with written.pointing() if written else nullcontext():
        workflow = converse(
            lambda client: client.workflows.update(
                workflow_id, name=name, description=description, dag=dag, policies=policies
            )
        )
    show(workflow, output)


@app.command()
def delete(workflow_id: WorkflowId, output: Output = OutputFormat.TABLE) -> None:
    """Delete a workflow; its runs stay."""
    converse(lambda client: client.workflows.delete(workflow_id))
    show(DeleteWorkflowResponse(), output)


@app.command()
def pin(workflow_id: WorkflowId, version_id: VersionId, output: Output = OutputFormat.TABLE) -> None:
    """Make one version the one that runs start with."""
    show(converse(lambda client: client.workflows.pin(workflow_id, version_id)), output)


@versions_app.command("create")
def create_version(workflow_id: WorkflowId, file: WorkflowFile, output: Output = OutputFormat.TABLE) -> None:
    """Create the next version of a workflow from a file."""
    written = workflow_files.read(file)
    document = written.workflow()
    with written.pointing():
        version = converse(lambda client: client.workflows.create_version(workflow_id, document.dag, document.policies))
    show(version, output)


@versions_app.command("list")
def list_versions(
    workflow_id: WorkflowId, page_size: PageSize = 0, page_token: PageToken = "", output: Output = OutputFormat.TABLE
) -> None:
    """List the versions of a workflow, newest first."""
    answer = converse(lambda client: client.workflows.versions(workflow_id, Page(page_size, page_token)))
    show_list(answer, answer.versions, columns.VERSIONS, output)
