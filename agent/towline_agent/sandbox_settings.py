"""What the settings of an agent decide about its sandbox."""

import os

from towline_agent import cgroups
from towline_agent.cgroups import Hierarchy
from towline_agent.sandbox.levels import Level, Policy
from towline_agent.sandbox.probe import Operator
from towline_agent.settings import Settings


def operator_of(settings: Settings) -> Operator:
    """Returns how strong the sandbox may be, and whom plugins run as."""
    most = Level.L4 if settings.sandbox == "auto" else Level[settings.sandbox]
    return Operator(most, settings.allow_root, settings.users if os.geteuid() == 0 else range(0))


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
