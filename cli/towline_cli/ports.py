"""Ports of this machine: which are free, and what to change when one is not."""

import errno
import os
import socket
from typing import Final

from towline_sdk.errors import TowlineError

HOST: Final = "127.0.0.1"


def require_free(port: int, setting: str) -> None:
    """Raises `TowlineError` naming the setting if nothing can listen on the port; 0 is always free.

    gRPC shares a port silently with another server of the same user, so a clash has to be found before it starts.
    """
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        taken = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({os.strerror(error.errno or 0)})"
        raise TowlineError(f"port {port} {taken}: choose another with {setting}") from None


def port_of(address: str) -> int:
    """Returns the port of HOST:PORT."""
    return int(address.rpartition(":")[2])
