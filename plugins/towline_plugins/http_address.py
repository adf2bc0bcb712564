"""Which network addresses a request may reach, and the only way to connect to one.

A name is resolved once, every address behind it is checked, and the connection goes to a checked address: a name that
resolves differently a moment later changes nothing. By default only public addresses may be reached.
"""

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from towline_sdk.plugin import PermanentError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AllowList:
    """What may be reached although it is not public: networks, hosts, and hosts at one port."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[tuple[str, int | None]] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a comma-separated list of hosts, `host:port` and CIDR networks."""
        networks: list[Network] = []
        hosts: list[tuple[str, int | None]] = []
        for entry in filter(None, (part.strip().lower() for part in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                hosts.append(_host_and_port(entry))
        return cls(tuple(networks), frozenset(hosts))

    def permits(self, host: str, port: int, address: Address) -> bool:
        """Whether a request to `host` may connect to `address`, one of those that the name resolves to."""
        if is_public(address) or not self.hosts.isdisjoint({(host, None), (host, port)}):
            return True
        candidates = (address, *_embedded(address))
        return any(candidate in network for candidate in candidates for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether an address, and any that it stands for, belongs to the public internet."""
    embedded = _embedded(address)
    if embedded:
        return all(is_public(inner) for inner in embedded)
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def connect(host: str, port: int, allowed: AllowList, remaining_seconds: Callable[[], float]) -> socket.socket:
    """Connects to the first address of a host that answers.

    Raises:
        PermanentError: One of its addresses may not be reached.
        OSError: The name does not resolve or nothing answers.
    """
    candidates = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, target in candidates:
        if not allowed.permits(host, port, _address(target)):
            raise PermanentError(
                f"{host} is not a public address, and this agent's TOWLINE_HTTP_ALLOW does not list it",
                code="HTTP_ADDRESS_FORBIDDEN",
            )
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, target in candidates:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(remaining_seconds())
            connection.connect(target)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _address(target: tuple[Any, ...]) -> Address:
    return ipaddress.ip_address(str(target[0]).partition("%")[0])


def _embedded(address: Address) -> tuple[Address, ...]:
    """The IPv4 addresses that an IPv6 address leads to: mapped, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    direct = [inner for inner in (address.ipv4_mapped, address.sixtofour) if inner is not None]
    return (*direct, *(address.teredo or ()))


def _host_and_port(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.rpartition(":")
    if colon and port.isdecimal():
        return host.strip("[]"), int(port)
    return entry, None
