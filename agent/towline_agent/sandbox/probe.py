"""Finds out what the sandbox is worth on this host: canaries attack from inside each level, and one without any.

A feature holds only if every attack on it was refused. An attack that is refused to the unconfined canary too proves
nothing, which is said. A level is usable if its canary, confined exactly as a plugin is, found all its features
holding and could do what honest plugins do.
"""

import asyncio
import fcntl
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from towline_agent.cgroups import NO_GROUPS, Hierarchy
from towline_agent.execution import EndReason, Exit, Launch, OutputStream, Supervisor
from towline_agent.files import reachable_folder, remove_tree
from towline_agent.sandbox import bait, group_attacks, reach
from towline_agent.sandbox.group_attacks import OnGroups
from towline_agent.sandbox.levels import FEATURES_OF, Confinement, Feature, Level, Network
from towline_agent.sandbox.standing import Standing
from towline_agent.sandbox.view import interpreter_folders

ATTACKS_ON: Final[Mapping[Feature, tuple[str, ...]]] = MappingProxyType(
    {
        Feature.NO_NEW_PRIVILEGES: ("gain_privileges",),
        Feature.RESOURCE_LIMITS: ("write_large_file", "raise_limits"),
        Feature.AGENT_HIDDEN: ("read_environment", "trace"),
        Feature.TREE_KILLED: ("outlive",),
        Feature.NOT_ROOT: ("be_root",),
        Feature.FILES_CONFINED: ("read_file", "read_by_link", "write_file"),
        Feature.SYSTEM_CALLS_FILTERED: ("trace_own_child", "make_mount_namespace", "mount"),
        Feature.SOCKETS_FILTERED: ("connect_tcp", "send_udp", "open_vsock"),
        Feature.SIGNALS_SCOPED: ("signal", "connect_abstract"),
        Feature.OWN_ROOT: ("see_file",),
        Feature.OWN_PROCESSES: ("see_process",),
        Feature.OWN_NETWORK: ("connect_tcp", "send_udp", "connect_abstract"),
        Feature.OWN_TMP: ("fill_tmp",),
        Feature.NO_CAPABILITIES: ("use_capability",),
        Feature.NO_USER_NAMESPACES: ("make_user_namespace",),
        Feature.MEMORY_CGROUP: ("exhaust_memory",),
        Feature.PIDS_CGROUP: ("exhaust_processes",),
        Feature.GROUP_KILLED: (group_attacks.ESCAPE,),
        Feature.OWN_USER: ("be_agents_user",),
    }
)
_CANARIES: Final = (
    Confinement(Level.L1),
    Confinement(Level.L2, Network.FILTERED),
    Confinement(Level.L3, Network.OWN),
)
_TIMEOUT_SECONDS: Final = 20.0
_OUTPUT_BYTES: Final = 64 * 1024
_ENTRY_POINT: Final = "python:towline_agent.sandbox.canary:run"
_CONTAINED: Final = Confinement(Level.L4, Network.OWN)
_NO_SHARES: Final = "attempts are given no share of the processors: they have limits of processor time"


@dataclass(frozen=True, slots=True)
class Operator:
    """What the operator of the agent decides about the sandbox."""

    most: Level = Level.L4
    """Attempts get no stronger level."""
    allow_root: bool = False
    """Plugins may run as root above L0."""
    uids: range = range(0)
    """Of an agent that is root."""

    @property
    def users(self) -> range:
        """The users that attempts run as, each one attempt at a time; none: as the agent itself."""
        return range(0) if self.allow_root else self.uids[:-1]

    @property
    def user_of_canaries(self) -> int | None:
        """The user that the canaries run as."""
        return None if self.allow_root or not self.uids else self.uids[-1]


@dataclass(frozen=True, slots=True)
class Findings:
    """Why each attack failed; empty if it did not. `broken`: the canary could not do its work."""

    refusals: Mapping[str, str]
    broken: str = ""
    lacking: Mapping[Feature, str] = field(default_factory=dict[Feature, str])
    """Features that could not be attacked, and why."""

    def refused(self, feature: Feature) -> bool:
        """Whether every attack on a feature was refused."""
        if self.broken or feature in self.lacking:
            return False
        return all(self.refusals.get(attack) for attack in ATTACKS_ON[feature])

    def why_not(self, feature: Feature) -> str:
        """Says why a feature does not hold."""
        if feature in self.lacking or self.broken:
            return self.lacking.get(feature, self.broken)
        succeeded = [attack for attack in ATTACKS_ON[feature] if not self.refusals.get(attack)]
        return f"the attack {', '.join(succeeded)} succeeded"


async def probe(supervisor: Supervisor, folder: Path, operator: Operator, groups: Hierarchy = NO_GROUPS) -> Standing:
    """Sends out the canaries, all at the same time, and returns what the host stands for.

    `folder` is where their work folders are made: in the same place as those of plugins. `groups` are those that the
    supervisor uses.
    """
    uid = operator.user_of_canaries
    async with bait.laid_out(uid) as laid:
        free = _send(supervisor, folder, Confinement(Level.L0), laid | {"agent": laid["pid"]})
        canaries = (*_CANARIES, _CONTAINED) if uid is not None and group_attacks.can_contain(groups) else _CANARIES
        confined = [_send(supervisor, folder, Confinement(each.level, each.network, uid), laid) for each in canaries]
        of_groups = group_attacks.attack(supervisor, folder, groups)
        on_groups, (unconfined, *found) = await asyncio.gather(of_groups, asyncio.gather(free, *confined))
    by_level = {each.level: findings for each, findings in zip(canaries, found, strict=True)}
    by_level[Level.L4] = _contained(found[-1], on_groups, uid)
    return replace(
        judge(by_level, unconfined, operator),
        kernel=platform.release(),
        probed_at=time.time(),
        memory_enforcement="cgroup" if on_groups.refusals.get("exhaust_memory") else "sampled",
    )


def _contained(strongest: Findings, on_groups: OnGroups, uid: int | None) -> Findings:
    """What the strongest canary found, with the attacks on groups that were made beside it."""
    alone = {} if uid is not None else {Feature.OWN_USER: "attempts run as the user of the agent"}
    return Findings({**strongest.refusals, **on_groups.refusals}, strongest.broken, {**on_groups.lacking, **alone})


def judge(by_level: Mapping[Level, Findings], unconfined: Findings, operator: Operator) -> Standing:
    """Returns the standing that the findings of the canaries give; the features are those of the strongest one."""
    usable = [level for level in by_level if all(_holds(by_level[level], each, operator) for each in _up_to(level))]
    level = max((level for level in usable if level <= operator.most), default=Level.L0)
    allowed = [level for level in by_level if level <= operator.most]
    best = max((level for level in allowed if not by_level[level].broken), default=Level.L1)
    missing = {Feature.CPU_CGROUP: _NO_SHARES}
    for feature in ATTACKS_ON:
        told = by_level[max(best, _level_of(feature))]
        if operator.most < _level_of(feature):
            missing[feature] = f"the agent is set to {operator.most.name} at most"
        elif not _holds(told, feature, operator):
            missing[feature] = told.why_not(feature)
    features = tuple(feature for feature in ATTACKS_ON if feature not in missing)
    unproven = {feature: why for feature in features if (why := _refused_to_all(unconfined, feature))}
    return Standing(level, features, missing, unproven, frozenset({Level.L0, *usable}))


def _up_to(level: Level) -> list[Feature]:
    return [feature for each, features in FEATURES_OF.items() if each <= level for feature in features]


def _level_of(feature: Feature) -> Level:
    return next((level for level, features in FEATURES_OF.items() if feature in features), Level.L2)


def _holds(findings: Findings, feature: Feature, operator: Operator) -> bool:
    if feature is Feature.NOT_ROOT and operator.allow_root:
        return not findings.broken
    return findings.refused(feature)


def _refused_to_all(unconfined: Findings, feature: Feature) -> str:
    refused = [f"{name}: {why}" for name in ATTACKS_ON[feature] if (why := unconfined.refusals.get(name))]
    return "; ".join(refused)


async def _send(supervisor: Supervisor, folder: Path, confinement: Confinement, laid: Mapping[str, Any]) -> Findings:
    root = folder / f"canary-{confinement.level.name}"
    work = await asyncio.to_thread(_make, root, confinement.uid)
    errors = bytearray()

    def keep(stream: OutputStream, data: bytes) -> None:
        errors.extend(data if stream is OutputStream.STDERR else b"")

    try:
        ended = await supervisor.run(_launch(work, confinement, laid), keep)
        found = await asyncio.to_thread(_read, ended, errors.decode(errors="replace"), work)
        return await asyncio.to_thread(_explain, found, confinement, folder)
    finally:
        await asyncio.to_thread(remove_tree, root)


def _make(root: Path, uid: int | None) -> Path:
    reachable_folder(root)
    for name in ("artifacts", "work"):
        (root / name).mkdir(mode=0o700)
        if uid is not None:
            os.chown(root / name, uid, uid)
    return root / "work"


def _launch(work: Path, confinement: Confinement, laid: Mapping[str, Any]) -> Launch:
    top = confinement.level or Level.L4
    names = {name for feature, attacks in ATTACKS_ON.items() if _level_of(feature) <= top for name in attacks}
    names -= group_attacks.ALONE if confinement.level else {group_attacks.ESCAPE}
    return Launch(
        key=f"canary-{confinement.level.name}",
        entry_point=_ENTRY_POINT,
        work_dir=work,
        artifacts_dir=work.parent / "artifacts",
        plugin_dir=None,
        environment={"PATH": os.defpath, "TMPDIR": str(work)},
        stdin=json.dumps({"config": {**laid, "attacks": sorted(names)}}).encode(),
        timeout_seconds=_TIMEOUT_SECONDS,
        memory_bytes=bait.MEMORY_BYTES,
        output_bytes=_OUTPUT_BYTES,
        confinement=confinement,
    )


def _read(ended: Exit, errors: str, work: Path) -> Findings:
    if ended.reason is not EndReason.EXITED or ended.exit_code != 0:
        return Findings({}, ended.message or (errors.strip().splitlines() or [f"it ended: {ended.reason}"])[-1])
    refusals: dict[str, str] = json.loads(ended.result)
    if not refusals.get("outlive"):
        refusals["outlive"] = _killed_with_tree(work)
    return Findings(refusals)


def _explain(found: Findings, confinement: Confinement, folder: Path) -> Findings:
    """Says why a canary could not work, if its user was kept from what it needs."""
    if not found.broken or confinement.uid is None or confinement.level >= Level.L3:
        return found
    in_the_way = reach.barrier((*interpreter_folders(), str(folder)))
    return replace(found, broken=reach.advice(in_the_way)) if in_the_way else found


def _killed_with_tree(work: Path) -> str:
    """The process that was to outlive its tree holds a lock for as long as it lives."""
    with (work / "alive").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
    return "killed with its tree"
