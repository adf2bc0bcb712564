"""Who a plugin runs as: a user of its own below root, no capabilities, and names for it in a user namespace."""

import os
from pathlib import Path

from towline_agent import prctl
from towline_agent.sandbox import syscalls


def map_user(uid: int, gid: int) -> None:
    """Gives a new user namespace the one user that it may have, the agent's own, under its own number."""
    # The kernel gives the files below to root while this process may not be inspected.
    prctl.allow_inspection()
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    prctl.refuse_inspection()


def become(uid: int | None, *, has_capabilities: bool) -> None:
    """Becomes the user of the attempt, for good, and gives up every capability."""
    if has_capabilities:
        prctl.drop_bounding_capabilities()
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if has_capabilities:
        syscalls.clear_capabilities()
