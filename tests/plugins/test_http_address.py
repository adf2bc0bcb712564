"""Which addresses may be reached, under which names, and that what was checked is what is connected to."""

import ipaddress
import socket
from typing import Any

import pytest
from http_server import Answer, serving

from towline_plugins import http_request
from towline_plugins.http_address import AllowList, is_public
from towline_sdk.plugin import PermanentError


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001:db8::1",
        "2001:0:a00:1::",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_address_that_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"]
)
def test_address_that_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("allowed", "host", "port", "address", "permitted"),
    [
        ("", "a.example", 80, "10.0.0.1", False),
        ("", "a.example", 80, "1.1.1.1", True),
        ("10.0.0.0/8", "a.example", 80, "10.0.0.1", True),
        ("10.0.0.0/8", "a.example", 80, "::ffff:10.0.0.1", True),
        ("10.0.0.0/8", "a.example", 80, "11.0.0.1", True),
        ("10.0.0.0/8", "a.example", 80, "192.168.0.1", False),
        ("fd00::/8", "a.example", 80, "fd00::1", True),
        ("10.0.0.1", "a.example", 80, "10.0.0.1", True),
        ("10.0.0.1", "a.example", 80, "10.0.0.2", False),
        ("A.Example", "a.example", 80, "10.0.0.1", True),
        ("a.example", "b.a.example", 80, "10.0.0.1", False),
        ("a.example:8080", "a.example", 8080, "10.0.0.1", True),
        ("a.example:8080", "a.example", 80, "10.0.0.1", False),
        ("[::1]:8080", "::1", 8080, "::1", True),
        (" x , 127.0.0.0/8 ,", "localhost", 80, "127.0.0.1", True),
    ],
)
def test_allow_list(allowed: str, host: str, port: int, address: str, permitted: bool) -> None:
    assert AllowList.parse(allowed).permits(host, port, ipaddress.ip_address(address)) is permitted


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0"]
)
def test_this_machine_is_refused_under_every_spelling(host: str) -> None:
    with serving() as server:
        with pytest.raises(PermanentError) as failure:
            http_request.run({"url": f"http://{host}:{server.server_port}/"})
        assert failure.value.code == "HTTP_ADDRESS_FORBIDDEN"
        assert server.seen == []


class Names:
    """Answers to name look-ups, one after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        addresses = self._answers[min(self.asked, len(self._answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


def test_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names(["1.1.1.1", "10.0.0.1"]))
    monkeypatch.setattr(socket, "socket", None)  # nothing is connected to
    with pytest.raises(PermanentError) as failure:
        http_request.run({"url": "http://rebound.example/"})
    assert failure.value.code == "HTTP_ADDRESS_FORBIDDEN"


def test_name_is_resolved_once_and_the_checked_address_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        server.answers["/"] = Answer(200, {}, b"checked")
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        monkeypatch.setattr(socket, "getaddrinfo", names)
        monkeypatch.setenv("TOWLINE_HTTP_ALLOW", "127.0.0.1/32")
        output = http_request.run({"url": f"http://rebound.example:{server.server_port}/"})
        assert output["body"] == "checked"
        assert names.asked == 1
        assert server.seen[0].headers["host"] == f"rebound.example:{server.server_port}"


def test_second_address_is_tried_when_the_first_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        server.answers["/"] = Answer()
        monkeypatch.setattr(socket, "getaddrinfo", Names(["127.0.0.2", "127.0.0.1"]))
        monkeypatch.setenv("TOWLINE_HTTP_ALLOW", "127.0.0.0/8")
        assert http_request.run({"url": f"http://twice.example:{server.server_port}/"})["status"] == 200
