"""Where a call comes from: the peer, or the client that a trusted gateway names.

What another peer says of addresses is not looked at: anybody can write a header.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import unquote

from towline_controlplane.services.callers import Context, metadata_of

ADDRESS_KEY: Final = "x-client-address"

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Addresses:
    """Tells the addresses of clients; `gateways` are the networks whose word is taken."""

    gateways: Sequence[Network] = ()

    def of(self, context: Context) -> str:
        """Returns the address of the client of a call; empty if it has none that can be told."""
        peer = _address(context.peer())
        if peer is None or not any(peer in network for network in self.gateways):
            return str(peer) if peer else ""
        named = [_parsed(value) for value in metadata_of(context, ADDRESS_KEY)]
        return str(named[0]) if len(named) == 1 and named[0] else str(peer)


def _address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Reads what gRPC calls a peer: `ipv4:192.0.2.7:4711`, or `ipv6:%5B::1%5D:4711`."""
    kind, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]")
    return _parsed(host) if kind in ("ipv4", "ipv6") else None


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
