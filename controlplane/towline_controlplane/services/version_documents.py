"""The document of a workflow version: its DAG, and beside it what it says of its runs, under the names of the API.

A policy that is empty on the wire (`{}`, `null`, 0) is none, so that an update can take one away.
"""

import json
from typing import Any, Final, TypeAlias

from towline.v1 import workflow_service_pb2 as pb
from towline.v1.workflow_pb2 import Concurrency
from towline_controlplane.errors import InvalidArgument
from towline_controlplane.services.dag_documents import dag_document
from towline_controlplane.services.struct_values import plain, plain_object, wire, wire_object
from towline_dag.workflows import wrong_policies

POLICIES: Final = ("inputSchema", "output", "timeoutMs", "concurrency")


Policied: TypeAlias = pb.CreateWorkflowRequest | pb.CreateWorkflowVersionRequest | pb.UpdateWorkflowRequest
"""A request that may carry a DAG and the policies of its runs."""


def asks_for_version(request: Policied) -> bool:
    """Tells whether a request sets anything that versions hold."""
    return request.HasField("dag") or bool(_given(request))


def version_document(request: Policied, base: str | None = None) -> dict[str, Any]:
    """Returns the document that a request describes, over that of a version to change; raises InvalidArgument."""
    below: dict[str, Any] = {} if base is None else json.loads(base)
    document = below | (dag_document(request.dag) if request.HasField("dag") or base is None else {})
    given = _given(request)
    wrong = wrong_policies(given)
    if wrong:
        raise InvalidArgument(wrong)
    document |= given
    return {key: value for key, value in document.items() if key not in POLICIES or value not in ({}, None, 0)}


def policies(text: str) -> dict[str, Any]:
    """Returns the fields of Workflow and WorkflowVersion that a stored document holds beside the DAG."""
    document: dict[str, Any] = json.loads(text)
    fields: dict[str, Any] = {}
    if "inputSchema" in document:
        fields["input_schema"] = wire_object(document["inputSchema"])
    if "output" in document:
        fields["output"] = wire(document["output"])
    if "timeoutMs" in document:
        fields["timeout_ms"] = document["timeoutMs"]
    if "concurrency" in document:
        fields["concurrency"] = Concurrency(**document["concurrency"])
    return fields


def _given(request: Policied) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if request.HasField("input_schema"):
        given["inputSchema"] = plain_object(request.input_schema)
    if request.HasField("output"):
        given["output"] = plain(request.output)
    if request.HasField("timeout_ms"):
        given["timeoutMs"] = request.timeout_ms
    if request.HasField("concurrency"):
        limit = request.concurrency
        given["concurrency"] = {"key": limit.key, "limit": limit.limit} if limit.key or limit.limit else {}
    return given
