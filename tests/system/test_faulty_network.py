"""What the links of the scenarios do to a connection."""

import contextlib
import socket
import threading
from collections.abc import Generator

import pytest
from faulty_network import Link, Network, Way, network


@pytest.fixture
def echo() -> Generator[str]:
    """A server that sends back what it gets, and ends a connection when its client does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            while data := connection.recv(1024):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield "{}:{}".format(*listener.getsockname())
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def net() -> Generator[Network]:
    with network() as opened:
        yield opened


@pytest.fixture
def link(net: Network, echo: str) -> Link:
    return net.link("client", "echo", echo)


def connect(link: Link) -> socket.socket:
    host, _, port = link.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(b"a")
    assert connection.recv(1) == b"a"
    return connection


@pytest.mark.parametrize("ways", [(), (Way.UP,), (Way.DOWN,)], ids=["both", "up", "down"])
def test_what_was_dropped_comes_late(link: Link, ways: tuple[Way, ...]) -> None:
    with connect(link) as connection:
        link.drop(*ways)
        connection.sendall(b"late")
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        link.heal()
        connection.settimeout(10)
        assert connection.recv(4) == b"late"


def test_a_cut_ends_connections_and_allows_new_ones(link: Link) -> None:
    with connect(link) as connection:
        link.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    connect(link).close()


def test_refusing_ends_connections_and_new_ones_until_it_is_healed(link: Link) -> None:
    with connect(link) as connection:
        link.refuse()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(link)
    link.heal()
    connect(link).close()


def test_half_closed_the_other_half_goes_on(link: Link) -> None:
    with connect(link) as connection:
        link.half_close(Way.DOWN)
        assert connection.recv(1) == b""
        connection.sendall(b"still taken")


def test_links_are_known_by_their_client(net: Network, link: Link, echo: str) -> None:
    assert net.link("client", "echo", echo) is link
    assert net.links_of("client") == [link]
    assert net.links_of("nobody") == []
