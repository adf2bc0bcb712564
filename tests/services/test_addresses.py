"""Where a call comes from: only a trusted gateway is believed."""

from ipaddress import ip_network
from typing import Any

import pytest

from towline_controlplane.services.addresses import Addresses

GATEWAYS = [ip_network("127.0.0.0/8"), ip_network("10.1.0.0/16"), ip_network("::1")]


class Peer:
    """The two facts of a context that are looked at."""

    def __init__(self, peer: str, *said: str) -> None:
        self._peer = peer
        self._said = said

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> Any:
        return tuple(("x-client-address", each) for each in self._said)


@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        ("ipv4:192.0.2.7:4711", [], "192.0.2.7"),
        ("ipv6:%5B2001:db8::7%5D:4711", [], "2001:db8::7"),
        ("ipv6:[::ffff:192.0.2.7]:4711", [], "192.0.2.7"),
        ("unix:/run/towline", [], ""),
        ("", [], ""),
        ("ipv4:127.0.0.1:4711", ["192.0.2.7"], "192.0.2.7"),
        ("ipv4:10.1.2.3:4711", ["2001:db8::7"], "2001:db8::7"),
        ("ipv6:%5B::1%5D:4711", ["192.0.2.7"], "192.0.2.7"),
        ("ipv4:10.2.0.1:4711", ["192.0.2.7"], "10.2.0.1"),
        ("ipv4:127.0.0.1:4711", ["nonsense"], "127.0.0.1"),
        ("ipv4:127.0.0.1:4711", ["192.0.2.7", "192.0.2.8"], "127.0.0.1"),
        ("unix:/run/towline", ["192.0.2.7"], ""),
    ],
)
def test_the_address_is_that_of_the_client(peer: str, said: list[str], address: str) -> None:
    context: Any = Peer(peer, *said)
    assert Addresses(GATEWAYS).of(context) == address


def test_nobody_is_believed_by_default() -> None:
    context: Any = Peer("ipv4:127.0.0.1:4711", "192.0.2.7")
    assert Addresses().of(context) == "127.0.0.1"
