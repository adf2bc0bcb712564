"""The limits that the kernel puts on each process by itself, set by a process on itself and inherited by its children.

They bound one process, not a tree: what the tree may use is for its control group, or for who watches it.
"""

import math
import os
import resource

from towline_agent.execution import Launch
from towline_agent.sandbox.levels import Level

_CPU_GRACE_SECONDS = 1
"""Between SIGXCPU, which a program may heed, and SIGKILL."""
_FEWEST_OPEN_FILES = 16
_MOST_FILE_BYTES = 16 * 1024**3
_MOST_PROCESSES = 4096


def apply(launch: Launch) -> None:
    """Puts the calling process under the limits of a launch; limits are only ever lowered.

    From L1 on what a launch leaves open is bounded too. Comes before the process changes its user and gives up /sys.
    """
    confined = launch.confinement.level >= Level.L1
    _lower(resource.RLIMIT_NOFILE, max(launch.open_files, _FEWEST_OPEN_FILES))
    if launch.file_bytes or confined:
        _lower(resource.RLIMIT_FSIZE, min(launch.file_bytes or _MOST_FILE_BYTES, _MOST_FILE_BYTES))
    if launch.cpu_seconds or confined:
        seconds = math.ceil(launch.cpu_seconds or launch.timeout_seconds * (os.cpu_count() or 1))
        _lower(resource.RLIMIT_CPU, seconds, seconds + _CPU_GRACE_SECONDS)
    if confined and (launch.confinement.uid is not None or os.geteuid() != 0):  # root is not held by it
        _lower(resource.RLIMIT_NPROC, _MOST_PROCESSES)


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    _, most = resource.getrlimit(kind)
    wanted = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(kind, (min(soft, wanted), wanted))
