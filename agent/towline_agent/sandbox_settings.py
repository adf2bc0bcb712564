"""What the settings of an agent decide about its sandbox."""

import os

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
