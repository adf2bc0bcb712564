"""DAGs between the wire and their document: the JSON shape of the public API, which is compiled and stored.

A document holds only what was set, under its JSON name (`from`, `to`, `retryConfig`), so that a stored DAG reads like
the one that was sent. What a DAG must be is decided by `towline_dag`; here only what it can be on the wire.
"""

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from towline.v1.sandbox_pb2 import Sandbox
from towline.v1.workflow_pb2 import Condition, Dag, Edge, Node, NodeLimits, RetryConfig
from towline_controlplane.errors import InvalidDag
from towline_controlplane.services.struct_values import plain_object, wire_object
from towline_dag.limits import MAX_EDGES, MAX_NODES
from towline_dag.workflows import wrong_values


def dag_document(dag: Dag, path: str = "dag") -> dict[str, Any]:
    """Returns the document of a DAG; raises InvalidDag for values that JSON cannot hold."""
    if len(dag.nodes) > MAX_NODES:
        raise InvalidDag.of(f"{path}.nodes", f"must not be more than {MAX_NODES:,}")
    if len(dag.edges) > MAX_EDGES:
        raise InvalidDag.of(f"{path}.edges", f"must not be more than {MAX_EDGES:,}")
    document = {"nodes": [_plain(node) for node in dag.nodes], "edges": [_plain(edge) for edge in dag.edges]}
    if wrong := wrong_values(document, path):
        raise InvalidDag(wrong)
    return document


def dag_message(text: str) -> Dag:
    """Returns the DAG that a stored document holds."""
    document = json.loads(text)
    return Dag(nodes=[_node(each) for each in document["nodes"]], edges=[_edge(each) for each in document["edges"]])


def _plain(message: Message) -> dict[str, Any]:
    return {field.json_name: _plain_field(field, value) for field, value in message.ListFields()}


def _plain_field(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Struct):
        return plain_object(value)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return list(value)
    if isinstance(value, Message):
        return _plain(value)
    if field.enum_type is not None:
        return _enum_name(field.enum_type, value)
    return value


def _enum_name(enum: EnumDescriptor, number: int) -> str | int:
    """Returns the name of a value, or its number if this contract does not have it: it is refused by that."""
    known = enum.values_by_number.get(number)
    return known.name if known else number


def _node(document: Mapping[str, Any]) -> Node:
    retry = document.get("retryConfig")
    return Node(
        id=document.get("id", ""),
        type=document.get("type", ""),
        plugin_id=document.get("pluginId"),
        plugin_version=document.get("pluginVersion"),
        config=wire_object(document["config"]) if "config" in document else None,
        retry_config=None if retry is None else _retry_config(retry),
        join=document.get("join", Node.JOIN_UNSPECIFIED),
        side_effects=document.get("sideEffects", Node.SIDE_EFFECTS_UNSPECIFIED),
        timeout_ms=document.get("timeoutMs"),
        memory_limit_mb=document.get("memoryLimitMb"),
        labels=document.get("labels"),
        display_name=document.get("displayName"),
        queue_timeout_ms=document.get("queueTimeoutMs"),
        min_sandbox=document.get("minSandbox", Sandbox.LEVEL_UNSPECIFIED),
        limits=_limits(document["limits"]) if "limits" in document else None,
        secrets=document.get("secrets"),
        weight=document.get("weight"),
        network=document.get("network", Sandbox.NETWORK_UNSPECIFIED),
        fetch_artifacts=document.get("fetchArtifacts"),
    )


def _limits(document: Mapping[str, Any]) -> NodeLimits:
    return NodeLimits(
        cpu_seconds=document.get("cpuSeconds"),
        processes=document.get("processes"),
        open_files=document.get("openFiles"),
        file_mb=document.get("fileMb"),
        output_kb=document.get("outputKb"),
        log_kb=document.get("logKb"),
    )


def _retry_config(document: Mapping[str, Any]) -> RetryConfig:
    return RetryConfig(
        max_attempts=document.get("maxAttempts"),
        backoff_ms=document.get("backoffMs"),
        backoff_multiplier=document.get("backoffMultiplier"),
        max_backoff_ms=document.get("maxBackoffMs"),
        max_lost=document.get("maxLost"),
        strategy=document.get("strategy", RetryConfig.STRATEGY_UNSPECIFIED),
        retry_on=document.get("retryOn"),
        memory_multiplier=document.get("memoryMultiplier"),
        max_memory_mb=document.get("maxMemoryMb"),
    )


def _edge(document: Mapping[str, Any]) -> Edge:
    condition = document.get("condition")
    return Edge(
        source=document.get("from", ""),
        target=document.get("to", ""),
        condition=None if condition is None else _condition(condition),
    )


def _condition(document: Mapping[str, Any]) -> Condition:
    return Condition(type=document.get("type", Condition.TYPE_UNSPECIFIED), expression=document.get("expression"))
