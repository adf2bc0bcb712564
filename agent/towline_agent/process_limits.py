"""The limits that the kernel puts on each process by itself, set by a process on itself and inherited by its children.

They bound one process, not a tree: what the tree may use is for its control group, or for who watches it.
"""

import math
import resource

from towline_agent.execution import Launch

_CPU_GRACE_SECONDS = 1
"""Between SIGXCPU, which a program may heed, and SIGKILL."""
_FEWEST_OPEN_FILES = 16


def apply(launch: Launch) -> None:
    """Puts the calling process under the limits of a launch; limits are only ever lowered."""
    _lower(resource.RLIMIT_NOFILE, max(launch.open_files, _FEWEST_OPEN_FILES))
    if launch.file_bytes:
        _lower(resource.RLIMIT_FSIZE, launch.file_bytes)
    if launch.cpu_seconds:
        seconds = math.ceil(launch.cpu_seconds)
        _lower(resource.RLIMIT_CPU, seconds, seconds + _CPU_GRACE_SECONDS)


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    _, most = resource.getrlimit(kind)
    wanted = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(kind, (min(soft, wanted), wanted))
