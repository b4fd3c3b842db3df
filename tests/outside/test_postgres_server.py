"""The Postgres server of the tests: it starts without root, survives a kill, and stops for a while."""

from collections.abc import Iterator

import psycopg
import pytest
from support.postgres import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def rows(url: str) -> list[int]:
    with psycopg.connect(url, autocommit=True, connect_timeout=60) as connection:
        return [row for (row,) in connection.execute("SELECT n FROM numbers ORDER BY n")]


def test_a_killed_server_restarts_with_what_was_committed(server: PostgresServer) -> None:
    url = server.fresh_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
        connection.execute("INSERT INTO numbers SELECT generate_series(1, 1000)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO numbers VALUES (2000)")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("COMMIT")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        server.start()
    assert rows(url) == list(range(1, 1001))


def test_its_databases_are_apart_and_have_vectors(server: PostgresServer) -> None:
    first, second = server.fresh_database(), server.fresh_database()
    with psycopg.connect(first, autocommit=True) as connection:
        connection.execute("CREATE TABLE numbers (n int)")
        connection.execute("CREATE EXTENSION vector")
    with psycopg.connect(second) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT n FROM numbers")


def test_its_connections_can_be_ended(server: PostgresServer) -> None:
    with psycopg.connect(server.fresh_database(), autocommit=True) as connection:
        assert server.terminate_backends() >= 1
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_a_stopped_server_answers_when_it_goes_on(server: PostgresServer) -> None:
    url = server.fresh_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")
        with server.stopped(), pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(url, connect_timeout=2)
        assert connection.execute("SELECT 7").fetchone() == (7,)
    assert rows(url) == [1]
