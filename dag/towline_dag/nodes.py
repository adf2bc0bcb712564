"""A node, read from its document."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from towline_dag import limits
from towline_dag.choices import (
    DEFAULT_LIMITS,
    Join,
    Limits,
    Network,
    RetryPolicy,
    SandboxLevel,
    SideEffects,
)
from towline_dag.expressions import ExpressionError
from towline_dag.fields import Fields
from towline_dag.templates import Template, compile_template


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One plugin call. `timeout_ms` and `memory_limit_mb` are 0 where the node sets no limit of its own."""

    index: int
    id: str
    type: str
    plugin_id: str
    plugin_version: str
    config: Template
    retry: RetryPolicy
    join: Join
    side_effects: SideEffects | None
    """None where the node leaves it to its plugin."""
    timeout_ms: int
    memory_limit_mb: int
    display_name: str
    labels: Mapping[str, str]
    min_sandbox: SandboxLevel
    network: Network
    weight: int
    queue_timeout_ms: int
    """How long it may wait for an agent; 0 without limit."""
    limits: Limits
    fetch_artifacts: bool
    """The artifacts of its predecessors are fetched before it starts."""
    takes_secrets: bool


_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_FAILURE_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_NO_CONFIG = compile_template({})
_DEFAULT_RETRY = RetryPolicy()


def read_node(fields: Fields, index: int) -> Node:
    """Returns the node that `fields` describe; what is wrong with them is noted there."""
    return Node(
        index=index,
        id=_id(fields),
        type=_type(fields),
        plugin_id=fields.text("pluginId", limits.MAX_PLUGIN_ID_CHARACTERS),
        plugin_version=fields.text("pluginVersion", limits.MAX_PLUGIN_VERSION_CHARACTERS),
        config=_config(fields),
        retry=_retry(fields.object("retryConfig")) if fields.has("retryConfig") else _DEFAULT_RETRY,
        join=fields.choice("join", Join.ALL),
        side_effects=_side_effects(fields),
        timeout_ms=fields.integer("timeoutMs", 0, limits.MAX_TIMEOUT_MS, 0),
        memory_limit_mb=fields.integer("memoryLimitMb", 0, limits.MAX_MEMORY_MB, 0),
        display_name=fields.text("displayName", limits.MAX_DISPLAY_NAME_CHARACTERS),
        labels=_labels(fields),
        min_sandbox=fields.choice("minSandbox", SandboxLevel.L0),
        network=fields.choice("network", Network.FULL),
        weight=fields.integer("weight", 1, limits.MAX_WEIGHT, 1),
        queue_timeout_ms=fields.integer("queueTimeoutMs", 0, limits.MAX_TIMEOUT_MS, 0),
        limits=_limits(fields.object("limits")) if fields.has("limits") else DEFAULT_LIMITS,
        fetch_artifacts=fields.flag("fetchArtifacts"),
        takes_secrets=bool(fields.raw("secrets")),
    )


def _side_effects(fields: Fields) -> SideEffects | None:
    said = fields.raw("sideEffects")
    if not said or said == "SIDE_EFFECTS_UNSPECIFIED":
        return None
    return fields.choice("sideEffects", SideEffects.IDEMPOTENT)


def _id(fields: Fields) -> str:
    """Returns the id even if it is malformed, so that edges still find their node."""
    node_id = fields.raw("id")
    if node_id is None or node_id == "":
        fields.refuse("id", "is missing")
    elif not isinstance(node_id, str):
        fields.refuse("id", "must be a string")
    else:
        if not _ID.fullmatch(node_id):
            rule = "a letter or '_', then letters, digits, '_', '-' and '.', at most 128 characters"
            fields.refuse("id", f"{node_id[:200]!r} is not an id: {rule}")
        return node_id
    return ""


def _type(fields: Fields) -> str:
    if not fields.raw("type") and not fields.raw("pluginId"):
        fields.refuse("type", "is missing: name a built-in or a plugin")
    return fields.text("type", limits.MAX_TYPE_CHARACTERS)


def _config(fields: Fields) -> Template:
    value = fields.raw("config")
    if not value and isinstance(value, dict | None):
        return _NO_CONFIG
    if not isinstance(value, dict):
        fields.refuse("config", "must be an object")
        return _NO_CONFIG
    config = cast("dict[str, object]", value)
    try:
        template = compile_template(config)
    except ExpressionError as error:
        fields.refuse(f"config{error.place}", error.message)
        return _NO_CONFIG
    size = len(json.dumps(config, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"))
    if size > limits.MAX_CONFIG_BYTES:
        fields.refuse("config", f"has {size} bytes; the limit is {limits.MAX_CONFIG_BYTES}")
    return template


def _retry(fields: Fields) -> RetryPolicy:
    unset = _DEFAULT_RETRY
    return RetryPolicy(
        max_attempts=fields.integer("maxAttempts", 1, limits.MAX_ATTEMPTS, unset.max_attempts),
        backoff_ms=fields.integer("backoffMs", 0, limits.MAX_BACKOFF_MS, unset.backoff_ms),
        multiplier=fields.number("backoffMultiplier", 1, limits.MAX_BACKOFF_MULTIPLIER, unset.multiplier),
        max_backoff_ms=fields.integer("maxBackoffMs", 1, limits.MAX_BACKOFF_MS, unset.max_backoff_ms),
        max_lost=fields.integer("maxLost", 0, limits.MAX_LOST, unset.max_lost),
        strategy=fields.choice("strategy", unset.strategy),
        retry_on=frozenset(fields.texts("retryOn", _FAILURE_NAME, limits.MAX_RETRY_ON)) or unset.retry_on,
        memory_multiplier=fields.number("memoryMultiplier", 1, limits.MAX_MEMORY_MULTIPLIER, unset.memory_multiplier),
        max_memory_mb=fields.integer("maxMemoryMb", 1, limits.MAX_MEMORY_MB, unset.max_memory_mb),
    )


def _limits(fields: Fields) -> Limits:
    return Limits(
        cpu_seconds=fields.integer("cpuSeconds", 1, limits.MAX_CPU_SECONDS, 0),
        processes=fields.integer("processes", 1, limits.MAX_PROCESSES, 0),
        open_files=fields.integer("openFiles", 1, limits.MAX_OPEN_FILES, 0),
        file_mb=fields.integer("fileMb", 1, limits.MAX_FILE_MB, 0),
        output_kb=fields.integer("outputKb", 1, limits.MAX_OUTPUT_KB, 0),
        log_kb=fields.integer("logKb", 1, limits.MAX_LOG_KB, 0),
    )


def _labels(fields: Fields) -> Mapping[str, str]:
    labels = fields.object("labels").entries()
    if len(labels) > limits.MAX_LABELS:
        fields.refuse("labels", f"has {len(labels)} entries; the limit is {limits.MAX_LABELS}")
        return {}
    for key, value in labels.items():
        if problem := _label_problem(key, value):
            fields.refuse("labels", problem)
    return {key: str(value) for key, value in labels.items()}


def _label_problem(key: str, value: object) -> str:
    if not 0 < len(key) <= limits.MAX_LABEL_KEY_CHARACTERS:
        return f"the key {key[:200]!r} must have 1 to {limits.MAX_LABEL_KEY_CHARACTERS} characters"
    if not isinstance(value, str):
        return f"the value of {key!r} must be a string"
    if len(value) > limits.MAX_LABEL_VALUE_CHARACTERS:
        return f"the value of {key!r} must have at most {limits.MAX_LABEL_VALUE_CHARACTERS} characters"
    return ""
