"""Addresses of Postgres databases, without a server: what is refused, and what messages show."""

import sys

import pytest

from pleinair.tools.storage.postgres import (
    DatabaseAway,
    check_address,
    connection,
    repeated,
    without_password,
)
from pleinair.tools.types import BadInput, PleinairError

URL = "postgresql://user:secret@host:5432/name?sslmode=require"


def test_messages_show_no_password() -> None:
    assert without_password(URL) == "postgresql://user@host:5432/name"
    assert without_password("postgresql://host/name") == "postgresql://host/name"
    assert "secret" not in without_password("host=host password=secret")
    assert "secret" not in without_password("postgresql://user:secret@[host/name")


@pytest.mark.parametrize("address", ["mysql://user:secret@host/name", "runs.sqlite", "", "http://[x"])
def test_an_address_of_something_else_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match=r"cluster\.database = .*accepted: postgresql://") as caught:
        check_address(address, "cluster.database")
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(PleinairError, match="psycopg") as caught:
        check_address(URL, "cluster.database")
    assert "pleinair[cluster]" in caught.value.remedy
    with pytest.raises(PleinairError, match="psycopg"), connection(URL):
        pass


def test_only_an_outage_is_repeated() -> None:
    failures: list[PleinairError] = [DatabaseAway("away"), DatabaseAway("away")]

    def action() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert repeated(action) == "done"
    failures.append(PleinairError("refused"))
    with pytest.raises(PleinairError, match="refused"):
        repeated(action)
    failures.append(DatabaseAway("away"))
    with pytest.raises(DatabaseAway):
        repeated(action, seconds=0)


def test_a_wait_for_the_database_can_be_stopped() -> None:
    def away() -> None:
        raise DatabaseAway("away")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repeated(away, check=stop)
