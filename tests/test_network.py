import socket

import pytest


def test_refuses_to_connect_to_another_machine() -> None:
    with socket.socket() as sock, pytest.raises(RuntimeError, match="may connect only to this machine"):
        sock.connect(("192.0.2.1", 80))


def test_refuses_to_look_up_a_name() -> None:
    with pytest.raises(RuntimeError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 443)


def test_refuses_a_datagram() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(RuntimeError, match="192"),
    ):
        sock.sendto(b"", ("192.0.2.1", 9))


def test_reaches_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
            assert accepted.getpeername()[0] == "127.0.0.1"
