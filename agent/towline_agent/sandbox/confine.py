"""The steps by which a forked process is confined, in the only order that works.

`enclose` is for the first process of an attempt, its shim; `restrict` for the plugin-to-be below it. Both raise
OSError if anything is refused: what cannot be confined is not run.
"""

import os
from dataclasses import dataclass

from towline_agent import prctl
from towline_agent.execution import Launch
from towline_agent.sandbox import identity, landlock, namespaces, root, seccomp, syscalls
from towline_agent.sandbox.levels import Level, Network, Policy
from towline_agent.sandbox.view import DEVICES, View, view_of


@dataclass(frozen=True, slots=True)
class Walls:
    """What is prepared once for all attempts of a supervisor."""

    view: View
    open_filter: bytes
    """For a plugin that may use a network."""
    closed_filter: bytes
    """For one that may not, and has none of its own."""
    uid: int
    gid: int
    """Of the agent."""


def prepare(policy: Policy) -> Walls | None:
    """Returns what confinement from L2 on needs; None where the machine is not known, and L1 is the most."""
    try:
        filters = seccomp.program(seccomp.CONNECTED), seccomp.program(seccomp.ISOLATED)
    except OSError:
        return None
    return Walls(view_of(policy), *filters, os.getuid(), os.getgid())


def enclose(launch: Launch, walls: Walls | None) -> None:
    """Furnishes the namespaces that the calling process, the first in them, was forked into."""
    confinement = launch.confinement
    if confinement.level < Level.L3:
        return
    known = _known(walls)
    uid, gid = (known.uid, known.gid) if confinement.uid is None else (confinement.uid, confinement.uid)
    if known.uid != 0:
        identity.map_user(uid, gid)
    namespaces.furnish(confinement)
    root.enter(
        root.Furniture(
            view=known.view,
            readable=_readable(launch),
            writable=_writable(launch),
            temporary_bytes=launch.memory_bytes,
            uid=uid,
            gid=gid,
        )
    )


def restrict(launch: Launch, walls: Walls | None) -> None:
    """Confines the calling process and all that it will fork or execute, short of its signals and descriptors."""
    confinement = launch.confinement
    if confinement.level >= Level.L1:
        _own_descriptors(confinement.uid)
        identity.become(confinement.uid, has_capabilities=confinement.level >= Level.L3 or os.geteuid() == 0)
    prctl.allow_inspection()
    if confinement.level >= Level.L2:
        known = _known(walls)
        filtered = confinement.network is Network.FILTERED
        landlock.restrict(_grants(launch, known.view), deny_tcp=filtered)
        seccomp.install(known.closed_filter if filtered else known.open_filter)


def _known(walls: Walls | None) -> Walls:
    if walls is None:
        raise OSError(f"the sandbox does not know the machine {syscalls.MACHINE}")
    return walls


def _readable(launch: Launch) -> tuple[str, ...]:
    folders = (launch.plugin_dir, launch.packages_dir, launch.inputs_dir)
    return tuple(str(path) for path in folders if path is not None)


def _writable(launch: Launch) -> tuple[str, ...]:
    return tuple(str(path) for path in (launch.work_dir, launch.artifacts_dir))


def _own_descriptors(uid: int | None) -> None:
    """Lets `/dev/stdout` and the like be opened by name: that asks who owns the pipe."""
    if uid is not None:
        for descriptor in range(4):
            os.fchown(descriptor, uid, uid)


def _grants(launch: Launch, view: View) -> list[tuple[str, int]]:
    if launch.confinement.level >= Level.L3:
        own = (root.TMP, root.SHARED_MEMORY, *_writable(launch))
        return [("/", landlock.READ), ("/dev", landlock.USE_DEVICE), *((path, landlock.WRITE) for path in own)]
    return [
        *((path, landlock.READ) for path in (*view.readable, *_readable(launch), "/proc")),
        *((path, landlock.READ) for path in ("/etc/passwd", "/etc/group", *(path for path, _ in view.links))),
        *((path, landlock.USE_DEVICE) for path in DEVICES),
        *((path, landlock.WRITE) for path in (*_writable(launch), _temporary(launch))),
    ]


def _temporary(launch: Launch) -> str:
    return launch.environment.get("TMPDIR", str(launch.work_dir))
