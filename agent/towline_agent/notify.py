"""Tells systemd how the service is, over the socket that it names (sd_notify); silent where no service manager is.

A report that cannot be delivered is no reason to stop working: it is logged, and the service manager draws its own
conclusions.
"""

import os
import socket
from collections.abc import Callable, Mapping

import structlog

from towline.v1.agent_service_pb2 import SyncRequest, SyncResponse
from towline_agent.control_plane import LeaseRenewal

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class ServiceManager:
    """The one that started this process, if any did."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An @ stands for the null byte of a name outside the file system.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        # Without WATCHDOG_USEC nobody waits for signs of life.
        self._watches = "WATCHDOG_USEC" in environment

    def waiting(self, reason: str) -> None:
        """The service is not ready yet."""
        self._say(f"STATUS={reason}")

    def ready(self) -> None:
        """The service works."""
        self._say("READY=1\nSTATUS=accepted by the control plane")

    def alive(self) -> None:
        """Both the caller and the thread it runs in still make progress."""
        if self._watches:
            self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """The service ends by itself; it may take as long as the unit allows."""
        self._say("STOPPING=1\nSTATUS=draining")

    def _say(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(0)
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("service_manager_not_told", state=state.partition("\n")[0], reason=str(error))


class WatchedRenewal:
    """Renews leases by another and calls `alive` each time, whether the control plane answers or not."""

    def __init__(self, renewal: LeaseRenewal, alive: Callable[[], object]) -> None:
        self._renewal = renewal
        self._alive = alive

    def sync(self, request: SyncRequest, timeout_seconds: float) -> SyncResponse:
        """Renews the leases; blocks."""
        self._alive()
        return self._renewal.sync(request, timeout_seconds)

    def close(self) -> None:
        """Makes a call under way fail at once."""
        self._renewal.close()
