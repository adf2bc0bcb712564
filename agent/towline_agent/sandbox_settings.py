"""What the settings of an agent decide about its sandbox."""

import os
from pathlib import Path

from towline_agent import cgroups
from towline_agent.cgroups import Hierarchy
from towline_agent.sandbox import reach
from towline_agent.sandbox.levels import Level, Policy
from towline_agent.sandbox.probe import Operator
from towline_agent.sandbox.standing import Standing
from towline_agent.sandbox.view import interpreter_folders
from towline_agent.settings import Settings


def operator_of(settings: Settings) -> Operator:
    """Returns how strong the sandbox may be, and whom plugins run as."""
    most = Level.L4 if settings.sandbox == "auto" else Level[settings.sandbox]
    return Operator(most, settings.allow_root, settings.users if os.geteuid() == 0 else range(0))


class UsersKeptOut(Exception):
    """Plugins cannot be confined as they are set to be; the message says what to do."""


def check_reach(operator: Operator, standing: Standing, state_dir: Path) -> None:
    """Refuses to run plugins as root, unconfined, where they were set to be confined as users that cannot reach them.

    Raises:
        UsersKeptOut: The operator has allowed no level at which it does not matter where things lie.
    """
    if not operator.users or not Level.L0 < operator.most < Level.L3 or standing.level > Level.L0:
        return
    in_the_way = reach.barrier((*interpreter_folders(), str(state_dir)))
    if in_the_way is not None:
        raise UsersKeptOut(reach.advice(in_the_way))


def policy_of(settings: Settings) -> Policy:
    """Returns what plugins may see of the host."""
    return Policy(tuple(map(str, settings.readable)), str(settings.state_dir.resolve()))


def claim_groups(settings: Settings) -> Hierarchy:
    """Makes the agent's place for control groups; where none can be had, or may, the hierarchy is empty and says why.

    Comes before any other process is started: v2 has room only for an agent that is alone in its group.
    """
    if settings.cgroups == "off":
        return Hierarchy.none("the agent is set to use no control groups")
    try:
        return cgroups.claim()
    except cgroups.Unavailable as reason:
        return Hierarchy.none(str(reason))
