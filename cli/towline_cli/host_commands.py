"""The commands of a worker host: known here by name, parsed and run by the agent's own modules.

Standard library only: on a host that has nothing but `towline[agent]` they are all there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class HostCommand:
    """A command that becomes a module of the agent; `module` is relative to its package."""

    words: tuple[str, ...]
    module: str
    help: str

    @property
    def name(self) -> str:
        """The command as it is typed."""
        return " ".join(("towline", *self.words))


HOST_COMMANDS: Final = (
    HostCommand(("agent", "run"), "", "Run an agent on this machine (--help lists its options)."),
    HostCommand(("agent", "enroll"), ".enroll", "Make this machine an agent: trade a token for a credential."),
    HostCommand(("plugin", "run"), ".try_plugin", "Run a plugin folder once on this machine, as an agent would."),
    HostCommand(("doctor",), ".doctor", "Prove how this machine can confine plugins, as its agent would."),
    HostCommand(("agent", "install-service"), ".install_service", "Write a hardened systemd unit for the agent."),
)


def asked_for(arguments: Sequence[str]) -> HostCommand | None:
    """Returns the command that the arguments begin with, if it is one of these."""
    return next((each for each in HOST_COMMANDS if tuple(arguments[: len(each.words)]) == each.words), None)
