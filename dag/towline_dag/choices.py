"""The words that a document chooses from, one meaning each, and the limits that it may ask for."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class ConditionType(StrEnum):
    """When an edge is satisfied, decided once its source has ended."""

    ALWAYS = "ALWAYS"
    ON_SUCCESS = "ON_SUCCESS"
    ON_FAILURE = "ON_FAILURE"
    EXPRESSION = "EXPRESSION"


class Join(StrEnum):
    """When a node with several incoming edges runs, decided once all their sources have ended."""

    ALL = "ALL"
    ANY = "ANY"
    ALL_DONE = "ALL_DONE"


class Strategy(StrEnum):
    """How the wait grows from one retry to the next."""

    EXPONENTIAL = "EXPONENTIAL"
    FIXED = "FIXED"


class SideEffects(StrEnum):
    """What a rerun after a lost agent may do to the world."""

    NONE = "NONE"
    IDEMPOTENT = "IDEMPOTENT"
    UNSAFE = "UNSAFE"


class Network(StrEnum):
    """What a plugin may reach."""

    NONE = "NONE"
    FULL = "FULL"


class SandboxLevel(IntEnum):
    """How well an agent confines what it runs; each level has everything that the ones below it have."""

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an attempt beyond its time and memory, as its plugin asks for them; 0 means the server's default."""

    cpu_seconds: int = 0
    """Processor time of the whole process tree."""
    processes: int = 0
    open_files: int = 0
    """Of one process."""
    file_mb: int = 0
    """Largest file that it may write."""
    output_kb: int = 0
    log_kb: int = 0
    artifact_mb: int = 0


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of the attempts of a node. `max_attempts` counts failures, `max_lost` reruns after a lost agent."""

    max_attempts: int = 3
    backoff_ms: int = 1_000
    multiplier: float = 2.0
    max_backoff_ms: int = 60_000
    max_lost: int = 3
    strategy: Strategy = Strategy.EXPONENTIAL
    retry_on: frozenset[str] = frozenset({"TRANSIENT"})
    """Classes, codes and causes of the failures that are tried again."""
    memory_multiplier: float = 1.0
    """By how much the memory grows after an attempt that ran out of it; 1: not at all."""
    max_memory_mb: int = 0
    """How far it grows; 0: as far as the server allows."""
