"""Connections to Postgres: pools that survive a server's kill, its errors in our words, forks."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from support.postgres import PostgresServer

from pleinair.tools.storage.postgres import (
    DatabaseAway,
    check_address,
    close_connections,
    connection,
    open_session,
    repeated,
)
from pleinair.tools.types import BadInput, PleinairError

Opened = Callable[[str], AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server
        close_connections()


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    yield server.fresh_database()
    close_connections()


def pid_of(url: str) -> int:
    with connection(url) as lent:
        return int(lent.execute("SELECT pg_backend_pid()").fetchall()[0][0])


def test_a_closed_connection_is_replaced(server: PostgresServer, url: str) -> None:
    before = pid_of(url)
    assert pid_of(url) == before
    server.terminate_backends()
    assert pid_of(url) != before


def test_a_restarted_server_is_used_again(server: PostgresServer, url: str) -> None:
    pid_of(url)
    server.kill()
    with pytest.raises(DatabaseAway):
        pid_of(url)
    starter = threading.Timer(1.0, server.start)
    starter.start()
    assert repeated(lambda: pid_of(url))
    starter.join()


def test_what_is_lost_in_a_transaction_is_an_outage(server: PostgresServer, url: str) -> None:
    with pytest.raises(DatabaseAway), connection(url) as lent, lent.transaction():
        lent.execute("CREATE TABLE numbers (n int)")
        server.terminate_backends()
        lent.execute("INSERT INTO numbers VALUES (1)")
    with connection(url) as lent:
        assert lent.execute("SELECT to_regclass('numbers')").fetchall() == [(None,)]


@pytest.mark.parametrize("opened", [connection, open_session])
def test_a_lost_connection_is_an_outage_and_a_mistake_is_none(opened: Opened, url: str) -> None:
    with pytest.raises(DatabaseAway), opened(url) as lent:
        lent.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(PleinairError, match="no_such_table") as caught, opened(url) as lent:
        lent.execute("SELECT * FROM no_such_table")
    assert not isinstance(caught.value, DatabaseAway)


def test_the_server_says_what_is_wrong_and_no_password_is_shown(url: str) -> None:
    wrong = url.replace("postgres@", "nobody-here:secret@")
    for opened in (connection, open_session):
        with pytest.raises(DatabaseAway, match="nobody-here") as caught, opened(wrong):
            pass
        assert "secret" not in str(caught.value)


def test_parameters_of_the_address_count(url: str) -> None:
    with connection(f"{url}?application_name=mine") as lent:
        assert lent.execute("SHOW application_name").fetchall() == [("mine",)]
        assert lent.execute("SHOW statement_timeout").fetchall() == [("30s",)]


def test_a_damaged_address_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(BadInput, match=r"cluster\.database = .*accepted"):
        check_address("postgresql://host:port/name?nope=1", "cluster.database")


def test_a_forked_process_has_its_own_connections(url: str) -> None:
    before = pid_of(url)
    child = os.fork()
    if not child:
        status = 1
        try:
            status = int(pid_of(url) == before)
        finally:
            os._exit(status)
    end = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
    assert ended[1] == 0
    assert pid_of(url) == before
