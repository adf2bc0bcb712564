"""What the agent asks of the process side: run one attempt's processes, see its output, learn how it ended.

The agent proper (sessions, leases, spools) knows only these nouns; `supervisor_client.py` implements `Supervisor`
with real processes and `testing.py` with a scripted one.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from towline_agent.sandbox.levels import LIMITED, Confinement


class EndReason(StrEnum):
    """Why the processes of an attempt are gone."""

    EXITED = "EXITED"
    SIGNALED = "SIGNALED"
    TIMEOUT = "TIMEOUT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    CPU_LIMIT = "CPU_LIMIT"
    PROCESS_LIMIT = "PROCESS_LIMIT"
    STOPPED = "STOPPED"
    SPAWN_FAILED = "SPAWN_FAILED"
    SANDBOX_FAILED = "SANDBOX_FAILED"
    SUPERVISOR_LOST = "SUPERVISOR_LOST"


class OutputStream(StrEnum):
    """Where a line of output came from; the value is its letter in the log format."""

    STDOUT = "O"
    STDERR = "E"
    SYSTEM = "S"


DEFAULT_PROCESSES = 1024
DEFAULT_OPEN_FILES = 4096


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at an attempt that runs."""

    offset_seconds: float
    """Since its start."""
    memory_bytes: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Watch:
    """What was seen of an attempt while it ran, and what the kernel has counted."""

    samples: tuple[Sample, ...] = ()
    """The last ones, oldest first."""
    sample_seconds: float = 0.0
    by_kernel: bool = False
    """The memory limit was the kernel's to enforce, by a control group."""
    kernel_kills: int = 0
    """Processes that the kernel killed for want of memory, in the attempt's group alone."""
    kills_around: int = 0
    """The same around the agent meanwhile, whomever it met; looked at where no group tells of the attempt alone."""
    was_at_limit: bool = False
    """The group was at its own memory limit."""
    refused_processes: int = 0
    """Forks that the kernel refused."""
    left: int = 0
    """Processes that could not be killed."""


NOT_WATCHED = Watch()


@dataclass(frozen=True, slots=True)
class Launch:
    """One attempt as processes see it. `key` is unique per hand-out; sizes in bytes, times in seconds."""

    key: str
    entry_point: str
    work_dir: Path
    artifacts_dir: Path
    """Where the plugin leaves files that are kept beyond the attempt: writable, beside the work folder."""
    plugin_dir: Path | None
    """The unpacked bundle, never written to; None for a built-in."""
    environment: dict[str, str]
    """The whole environment: nothing of the agent's own is inherited."""
    stdin: bytes
    timeout_seconds: float
    memory_bytes: int
    output_bytes: int
    """Largest accepted result document."""
    kill_grace_seconds: float = 5.0
    cpu_seconds: float = 0.0
    """Of the whole tree; 0 without limit."""
    processes: int = DEFAULT_PROCESSES
    """Processes and threads of the whole tree."""
    open_files: int = DEFAULT_OPEN_FILES
    """Of one process."""
    file_bytes: int = 0
    """Largest file that may be written; 0 without limit."""
    packages_dir: Path | None = None
    """The virtual environment of the plugin's packages, never written to; None if it has none."""
    secrets: bytes = field(default=b"", repr=False)
    """The JSON object that is read once from TOWLINE_SECRETS_FD; empty if there are none."""
    confinement: Confinement = LIMITED
    inputs_dir: Path | None = None
    """Artifacts of the predecessors, read-only; None if the step does not want them."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How the processes of an attempt ended. No process of the attempt is left when it is known."""

    reason: EndReason
    exit_code: int | None = None
    signal: int | None = None
    result: bytes = b""
    """What was written to the result descriptor, at most `output_bytes`."""
    result_truncated: bool = False
    peak_memory_bytes: int = 0
    cpu_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    message: str = ""
    """For SPAWN_FAILED, SANDBOX_FAILED and SUPERVISOR_LOST: what went wrong."""
    killed: tuple[int, ...] = field(default=())
    """Processes that outlived the main one and had to be killed."""
    watch: Watch = NOT_WATCHED

    @property
    def fell_to_the_machine(self) -> bool:
        """Whether the kernel seems to have killed it for the whole machine: nothing else explains it as well."""
        killed = self.reason is EndReason.SIGNALED and self.signal == signal.SIGKILL
        return killed and not self.watch.by_kernel and self.watch.kills_around > 0


OnOutput = Callable[[OutputStream, bytes], None]
"""Called in the event loop with the raw bytes as they are read; lines may be cut anywhere."""


class Supervisor(Protocol):
    """Runs attempts as process trees under limits."""

    async def run(self, launch: Launch, on_output: OnOutput) -> Exit:
        """Runs an attempt to its end; if cancelled, kills the tree first."""
        ...

    def stop(self, key: str) -> None:
        """Asks the tree of `key` to end (SIGTERM, grace, SIGKILL); `run` then answers STOPPED.

        Unknown keys are ignored.
        """
        ...

    def freeze(self, key: str) -> None:
        """Stops the tree of `key` where it is, with the clock of its timeout, until `thaw` or its end.

        Unknown keys are ignored, here and by `thaw`.
        """
        ...

    def thaw(self, key: str) -> None:
        """Lets the tree of `key` go on."""
        ...

    async def close(self) -> None:
        """Kills what still runs and ends the supervisor."""
        ...
