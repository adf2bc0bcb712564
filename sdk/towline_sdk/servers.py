"""How the replicas of a control plane are named: `host:port,https://host:port`. Imports no gRPC.

An address is reached without TLS unless it begins with `https://`.
"""

from typing import Final

_TLS: Final = "https://"
_PLAIN: Final = "http://"


def addresses(servers: str) -> tuple[str, ...]:
    """Returns the addresses of a list."""
    return tuple(part.strip() for part in servers.split(",") if part.strip())


def has_tls(address: str) -> bool:
    """Tells whether an address is to be reached with TLS."""
    return address.startswith(_TLS)


def host_and_port(address: str) -> str:
    """Returns what of an address is left without its scheme."""
    return address.removeprefix(_TLS).removeprefix(_PLAIN).rstrip("/")


def checked(servers: str) -> str:
    """Returns the list as it is; raises ValueError unless it names a server, and each with its port."""
    found = addresses(servers)
    if not found or not all(host_and_port(address).rpartition(":")[2].isdigit() for address in found):
        raise ValueError("servers are written as host:port,host:port, with https:// before those that have TLS")
    return servers
