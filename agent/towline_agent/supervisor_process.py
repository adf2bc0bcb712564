"""Starts the supervisor as a process of its own.

It gets nothing of the agent's: not its environment, not its descriptors but the control socket as standard input.
"""

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from towline_agent.control_channel import ControlChannel
from towline_agent.sandbox.levels import Policy

_READY_SECONDS = 60
_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8"}


class SupervisorStartError(RuntimeError):
    """The supervisor ended, or said nothing, before it could serve; its standard error says why."""


@dataclass(frozen=True, slots=True)
class SupervisorProcess:
    """A running supervisor and the agent's end of its control socket."""

    popen: subprocess.Popen[bytes]
    channel: ControlChannel

    @classmethod
    def spawn(cls, packages: Sequence[str], policy: Policy) -> Self:
        """Starts a supervisor by `vfork` and `exec`, so that it may also be done after gRPC has started."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            module = ("-m", "towline_agent.supervisor", json.dumps(asdict(policy)), *packages)
            popen = subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
                [sys.executable, "-P", "-X", "utf8", *module],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_ENVIRONMENT,
            )
        return cls(popen, ControlChannel(ours))

    def wait_until_ready(self) -> None:
        """Blocks until the supervisor has imported what it forks from.

        Raises:
            SupervisorStartError: It never will.
        """
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        try:
            if poll.poll(_READY_SECONDS * 1000) and next(self.channel.receive(), None) is not None:
                return
        except EOFError:
            pass
        self.kill()
        raise SupervisorStartError(f"the supervisor did not start (exit code {self.popen.returncode})")

    def kill(self) -> None:
        """Kills the supervisor; its shims kill their trees by themselves."""
        self.popen.kill()
        self.reap()

    def reap(self) -> None:
        """Waits for a supervisor that is ending."""
        self.popen.wait()
        self.channel.close()
