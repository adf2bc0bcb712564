"""The calls of `WorkflowService`, a part of `client`."""

from dataclasses import dataclass

from towline.v1 import workflow_service_pb2 as pb
from towline.v1.workflow_pb2 import Dag, Workflow, WorkflowVersion
from towline_sdk.documents import NO_POLICIES, Policies, WorkflowDocument
from towline_sdk.pages import FIRST_PAGE, Page
from towline_sdk.transport import Transport


@dataclass(frozen=True, slots=True)
class WorkflowCalls:
    """Workflows and their versions."""

    _transport: Transport

    async def create(self, document: WorkflowDocument) -> Workflow:
        """Creates a workflow with its first version."""
        request = pb.CreateWorkflowRequest(
            name=document.name, description=document.description, dag=document.dag, **document.policies.given()
        )
        return (await self._transport.call(request, pb.CreateWorkflowResponse)).workflow

    async def list(self, page: Page = FIRST_PAGE) -> pb.ListWorkflowsResponse:
        """Returns a page of workflows, newest first."""
        request = pb.ListWorkflowsRequest(page_size=page.size, page_token=page.token)
        return await self._transport.call(request, pb.ListWorkflowsResponse)

    async def get(self, workflow_id: str) -> Workflow:
        """Returns a workflow with its DAG."""
        request = pb.GetWorkflowRequest(workflow_id=workflow_id)
        return (await self._transport.call(request, pb.GetWorkflowResponse)).workflow

    async def update(
        self,
        workflow_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        dag: Dag | None = None,
        policies: Policies = NO_POLICIES,
    ) -> Workflow:
        """Changes what is given; a DAG or a policy makes a new version."""
        request = pb.UpdateWorkflowRequest(
            workflow_id=workflow_id, name=name, description=description, dag=dag, **policies.given()
        )
        return (await self._transport.call(request, pb.UpdateWorkflowResponse)).workflow

    async def delete(self, workflow_id: str) -> None:
        """Deletes a workflow; its runs stay."""
        request = pb.DeleteWorkflowRequest(workflow_id=workflow_id)
        await self._transport.call(request, pb.DeleteWorkflowResponse)

    async def create_version(self, workflow_id: str, dag: Dag, policies: Policies = NO_POLICIES) -> WorkflowVersion:
        """Creates the next version of a workflow."""
        request = pb.CreateWorkflowVersionRequest(workflow_id=workflow_id, dag=dag, **policies.given())
        return (await self._transport.call(request, pb.CreateWorkflowVersionResponse)).version

    async def versions(self, workflow_id: str, page: Page = FIRST_PAGE) -> pb.ListWorkflowVersionsResponse:
        """Returns a page of the versions of a workflow, newest first."""
        request = pb.ListWorkflowVersionsRequest(workflow_id=workflow_id, page_size=page.size, page_token=page.token)
        return await self._transport.call(request, pb.ListWorkflowVersionsResponse)

    async def pin(self, workflow_id: str, version_id: str) -> Workflow:
        """Makes one version the one that runs start with."""
        request = pb.PinWorkflowVersionRequest(workflow_id=workflow_id, version_id=version_id)
        return (await self._transport.call(request, pb.PinWorkflowVersionResponse)).workflow
