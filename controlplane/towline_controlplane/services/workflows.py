"""WorkflowService: workflows and their immutable versions.

A version is checked whole before it is stored: the DAG compiles, each node's plugin is resolved and recorded, and
its config fits. What runs later is exactly that (I21).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, cast

from towline.v1 import workflow_service_pb2 as pb
from towline_controlplane.engine.graph import compile_dag
from towline_controlplane.errors import InvalidArgument, InvalidDag
from towline_controlplane.ids import new_id
from towline_controlplane.json_values import to_text
from towline_controlplane.model import PluginRef, Workflow, WorkflowVersion
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context, current_user, visible_owner
from towline_controlplane.services.checks import found, refuse
from towline_controlplane.services.etags import require_etag
from towline_controlplane.services.list_queries import WORKFLOW_ORDERS, key_shape, order_of, workflow_filter
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size, query_of
from towline_controlplane.services.plugin_choice import choose_plugins
from towline_controlplane.services.secret_uses import with_node_secrets, wrong_secrets
from towline_controlplane.services.version_documents import Policied, asks_for_version, version_document
from towline_controlplane.store import workflows
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.keysets import Place
from towline_dag.workflows import MAX_DAG_BYTES, wrong_texts

_LIMITS: Final = PageLimits()

Change: TypeAlias = (
    pb.UpdateWorkflowRequest | pb.DeleteWorkflowRequest | pb.CreateWorkflowVersionRequest | pb.PinWorkflowVersionRequest
)


@dataclass(frozen=True, slots=True)
class CheckedDag:
    """A DAG that can run: its text and the plugin of each node."""

    text: str
    plugins: Mapping[str, PluginRef]

    def version(self, workflow_id: str, now: int) -> WorkflowVersion:
        """Returns a first version with this DAG; the store numbers later ones."""
        return WorkflowVersion(new_id(), workflow_id, 1, self.text, self.plugins, now)


@dataclass(frozen=True, slots=True)
class WorkflowService:
    """Implements `towline.v1.WorkflowService`."""

    database: Database

    async def CreateWorkflow(self, request: pb.CreateWorkflowRequest, _context: Context) -> pb.CreateWorkflowResponse:
        """Creates a workflow with its first version."""
        _check_texts(request.name, request.description)
        owner_id, workflow_id = current_user().id, new_id()
        dag = await self._checked(request, owner_id)

        def insert(tx: Transaction) -> Workflow:
            version = dag.version(workflow_id, tx.now)
            row = Workflow(
                id=workflow_id,
                owner_id=owner_id,
                name=request.name,
                description=request.description,
                current_version=version.number,
                current_version_id=version.id,
                pinned_version_id=None,
                create_time=tx.now,
                update_time=tx.now,
            )
            workflows.insert_workflow(tx, row, version)
            return row

        row = await self.database.write(insert)
        return pb.CreateWorkflowResponse(workflow=await asyncio.to_thread(convert.workflow, row, dag.text))

    async def ListWorkflows(self, request: pb.ListWorkflowsRequest, _context: Context) -> pb.ListWorkflowsResponse:
        """Lists workflows, without their DAGs."""
        size, order = page_size(request.page_size, _LIMITS), order_of(WORKFLOW_ORDERS, request.order_by)
        narrow, query = workflow_filter(request, visible_owner()), query_of(request)
        after = decode_token(request.page_token, key_shape(order), *query)

        def read(tx: Transaction) -> pb.ListWorkflowsResponse:
            page = gather(
                lambda key, limit: workflows.list_workflows(tx, narrow, cast("Place | None", key), limit, order),
                order.place,
                after,
                size,
                lambda row: len(row.description),
            )
            return pb.ListWorkflowsResponse(
                workflows=[convert.workflow(row) for row in page.rows],
                next_page_token=encode_token(page.next_key, *query),
            )

        return await self.database.read(read)

    async def GetWorkflow(self, request: pb.GetWorkflowRequest, _context: Context) -> pb.GetWorkflowResponse:
        """Returns a workflow with the DAG that a run started now would execute."""
        owner_id = visible_owner()

        def read(tx: Transaction) -> pb.GetWorkflowResponse:
            row = _visible(tx, request.workflow_id, owner_id)
            return pb.GetWorkflowResponse(workflow=convert.workflow(row, _dag_to_run(tx, row)))

        return await self.database.read(read)

    async def UpdateWorkflow(self, request: pb.UpdateWorkflowRequest, _context: Context) -> pb.UpdateWorkflowResponse:
        """Changes what is given: name, description, and by a new version the DAG and its policies."""
        owner_id = visible_owner()
        await self.database.read(lambda tx: require_etag(_visible(tx, request.workflow_id, owner_id), request.etag))
        _check_texts(request.name if request.HasField("name") else None, request.description)
        dag = await self._changed(request) if asks_for_version(request) else None

        def update(tx: Transaction) -> tuple[Workflow, str]:
            row = _to_change(tx, request, owner_id)
            name = request.name if request.HasField("name") else row.name
            description = request.description if request.HasField("description") else row.description
            workflows.update_workflow(tx, row.id, name, description)
            if dag is not None:
                _insert_version(tx, dag, row.id)
            row = _visible(tx, row.id, owner_id)
            return row, _dag_to_run(tx, row)

        row, text = await self.database.write(update)
        return pb.UpdateWorkflowResponse(workflow=await asyncio.to_thread(convert.workflow, row, text))

    async def DeleteWorkflow(self, request: pb.DeleteWorkflowRequest, _context: Context) -> pb.DeleteWorkflowResponse:
        """Hides a workflow for good; its runs stay."""
        owner_id = visible_owner()

        def delete(tx: Transaction) -> None:
            workflows.delete_workflow(tx, _to_change(tx, request, owner_id).id)

        await self.database.write(delete)
        return pb.DeleteWorkflowResponse()

    async def CreateWorkflowVersion(
        self, request: pb.CreateWorkflowVersionRequest, _context: Context
    ) -> pb.CreateWorkflowVersionResponse:
        """Creates the next version of a workflow."""
        owner_id = visible_owner()
        workflow = await self.database.read(lambda tx: _visible(tx, request.workflow_id, owner_id))
        dag = await self._checked(request, workflow.owner_id)

        def insert(tx: Transaction) -> WorkflowVersion:
            return _insert_version(tx, dag, _to_change(tx, request, owner_id).id)

        version = await self.database.write(insert)
        return pb.CreateWorkflowVersionResponse(version=await asyncio.to_thread(convert.workflow_version, version))

    async def ListWorkflowVersions(
        self, request: pb.ListWorkflowVersionsRequest, _context: Context
    ) -> pb.ListWorkflowVersionsResponse:
        """Lists the versions of a workflow, newest first."""
        owner_id, size = visible_owner(), page_size(request.page_size, _LIMITS)
        query = ("ListWorkflowVersions", request.workflow_id)
        after = decode_token(request.page_token, (int,), *query)

        def read(tx: Transaction) -> pb.ListWorkflowVersionsResponse:
            row = _visible(tx, request.workflow_id, owner_id)
            page = gather(
                lambda key, limit: workflows.list_versions(tx, row.id, int(key[0]) if key else None, limit),
                lambda version: (version.number,),
                after,
                size,
                lambda version: len(version.dag),
            )
            return pb.ListWorkflowVersionsResponse(
                versions=[convert.workflow_version(version) for version in page.rows],
                next_page_token=encode_token(page.next_key, *query),
            )

        return await self.database.read(read)

    async def PinWorkflowVersion(
        self, request: pb.PinWorkflowVersionRequest, _context: Context
    ) -> pb.PinWorkflowVersionResponse:
        """Makes one version the one that runs start with."""
        owner_id = visible_owner()

        def pin(tx: Transaction) -> tuple[Workflow, str]:
            row = _to_change(tx, request, owner_id)
            pinned = workflows.pin_version(tx, row.id, request.version_id)
            found(pinned or None, "version", request.version_id)
            row = _visible(tx, row.id, owner_id)
            return row, _dag_to_run(tx, row)

        row, text = await self.database.write(pin)
        return pb.PinWorkflowVersionResponse(workflow=await asyncio.to_thread(convert.workflow, row, text))

    async def _checked(self, request: Policied, owner_id: str) -> CheckedDag:
        if not request.HasField("dag"):
            raise InvalidArgument.of("dag", "is required")
        # In a reader's thread: a large DAG would hold up every other call.
        return await self.database.read(lambda tx: _check_document(tx, version_document(request), owner_id))

    async def _changed(self, request: pb.UpdateWorkflowRequest) -> CheckedDag:
        owner_id = visible_owner()

        def read(tx: Transaction) -> CheckedDag:
            row = _visible(tx, request.workflow_id, owner_id)
            newest = found(workflows.get_version(tx, row.current_version_id), "version of workflow", row.id)
            return _check_document(tx, version_document(request, newest.dag), row.owner_id)

        return await self.database.read(read)


def _check_texts(name: str | None, description: str) -> None:
    refuse(wrong_texts(name, description))


def _check_document(tx: Transaction, document: dict[str, Any], owner_id: str) -> CheckedDag:
    text = to_text(document)
    if len(text.encode()) > MAX_DAG_BYTES:
        raise InvalidArgument.of("dag", f"is larger than {MAX_DAG_BYTES} bytes")
    plugins, wrong = choose_plugins(tx, document)
    plugins = with_node_secrets(document, plugins)
    wrong += wrong_secrets(tx, document, plugins, owner_id)
    try:
        compile_dag(document, plugins)
    except InvalidDag as refusal:
        raise InvalidDag([*refusal.violations, *wrong]) from None
    if wrong:
        raise InvalidDag(wrong)
    return CheckedDag(text, plugins)


def _visible(tx: Transaction, workflow_id: str, owner_id: str | None) -> Workflow:
    return found(workflows.get_workflow(tx, workflow_id, owner_id), "workflow", workflow_id)


def _to_change(tx: Transaction, request: Change, owner_id: str | None) -> Workflow:
    """The workflow, locked, in the state that the request wants it in."""
    row = found(workflows.lock_workflow(tx, request.workflow_id, owner_id), "workflow", request.workflow_id)
    require_etag(row, request.etag)
    return row


def _insert_version(tx: Transaction, dag: CheckedDag, workflow_id: str) -> WorkflowVersion:
    version = dag.version(workflow_id, tx.now)
    number = workflows.insert_version(tx, version)
    return replace(version, number=number)


def _dag_to_run(tx: Transaction, row: Workflow) -> str:
    version = workflows.get_version(tx, row.pinned_version_id or row.current_version_id)
    return found(version, "version of workflow", row.id).dag
