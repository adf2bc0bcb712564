"""Why an attempt died: the causes, and what is kept of what was seen. Imports nothing of ours but how rows are made."""

from enum import StrEnum

from towline_controlplane.frozen import frozen


class Cause(StrEnum):
    """What ended an attempt."""

    PLUGIN_ERROR = "PLUGIN_ERROR"
    EXIT_CODE = "EXIT_CODE"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    KERNEL_OOM = "KERNEL_OOM"
    WALL_TIMEOUT = "WALL_TIMEOUT"
    CPU_LIMIT = "CPU_LIMIT"
    PROCESS_LIMIT = "PROCESS_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    FILE_LIMIT = "FILE_LIMIT"
    DISK_FULL = "DISK_FULL"
    SIGNAL = "SIGNAL"
    CRASH = "CRASH"
    CANCELLED = "CANCELLED"
    LEASE_LOST = "LEASE_LOST"
    AGENT_LOST = "AGENT_LOST"
    SANDBOX_UNAVAILABLE = "SANDBOX_UNAVAILABLE"
    SPAWN_FAILED = "SPAWN_FAILED"
    BUNDLE_UNAVAILABLE = "BUNDLE_UNAVAILABLE"
    INVALID_OUTPUT = "INVALID_OUTPUT"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    RUN_TIMEOUT = "RUN_TIMEOUT"
    INPUTS_UNAVAILABLE = "INPUTS_UNAVAILABLE"
    INTERNAL = "INTERNAL"
    ARTIFACTS = "ARTIFACTS"


@frozen
class Evidence:
    """How an attempt died."""

    cause: Cause
    facts: str = "{}"
    """What its agent saw and counted: JSON text, as the contract names it, without the cause."""
