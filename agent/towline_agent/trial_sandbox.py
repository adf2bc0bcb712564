"""The sandbox of a trial: what an agent on this machine would have, proved in the same way, and told to a person.

Decided by the agent's own settings in the environment. As root a trial has users of its own, which no agent has.
"""

import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from towline_agent.cgroups import Hierarchy
from towline_agent.sandbox.levels import FEATURES_OF, Level, Policy
from towline_agent.sandbox.probe import Operator
from towline_agent.sandbox.standing import Standing
from towline_agent.sandbox.users import NoUserLeft
from towline_agent.sandbox_settings import claim_groups, operator_of, policy_of
from towline_agent.settings import Settings

_UIDS: Final = range(60_578, 60_600)
"""Below those of agents; each trial has one for the plugin and one for the canaries."""


@dataclass(frozen=True, slots=True)
class TrialSandbox:
    """What is there for a trial before anything is proved."""

    groups: Hierarchy
    operator: Operator
    policy: Policy

    @property
    def groups_in_use(self) -> Hierarchy | None:
        """The groups, if there are any."""
        return self.groups if self.groups.folders else None


@contextmanager
def prepared(settings: Settings, state_dir: Path) -> Generator[TrialSandbox]:
    """Takes groups and users, and gives them back; comes before any process is started."""
    with ExitStack() as stack:
        operator = operator_of(settings)
        if operator.users:
            operator = replace(operator, uids=_take_users(stack))
        groups = claim_groups(settings)
        stack.callback(groups.dissolve)
        yield TrialSandbox(groups, operator, replace(policy_of(settings), hidden=str(state_dir)))


def describe(standing: Standing) -> str:
    """Returns the level and what is missing, line by line."""
    memory = "by the kernel" if standing.memory_enforcement == "cgroup" else "by looking"
    missing = [f"  without {feature}: {reason}\n" for feature, reason in standing.missing.items()]
    return "".join([f"sandbox {standing.level.name}, memory is kept {memory}\n", *missing])


def lacking(standing: Standing, level: Level) -> str:
    """Says why a level cannot be had."""
    needed = [feature for each, features in FEATURES_OF.items() if each <= level for feature in features]
    return "; ".join(f"{name}: {standing.missing[name]}" for name in needed if name in standing.missing)


def _take_users(stack: ExitStack) -> range:
    """Takes two that no other trial on this machine has: a name can be bound once."""
    for first in _UIDS[::2]:
        taken = stack.enter_context(socket.socket(socket.AF_UNIX))
        try:
            taken.bind(f"\0towline-trial-{first}")
        except OSError:
            continue
        return range(first, first + 2)
    raise NoUserLeft("too many trials run at the same time")
