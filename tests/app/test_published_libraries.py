"""Settings of libraries that machines share; without them no package for Postgres is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pleinair.app.api import validate
from pleinair.app.libraries import build_folder, index_folder
from pleinair.app.settings import home_of, load
from pleinair.tools.types import BadInput, PleinairError

URL = "postgresql://user@127.0.0.1:1/name"
WITHOUT = """
import sys
sys.modules |= {"psycopg": None, "pgvector": None}  # any import of them is an error
from pleinair.app.api import draw
from pleinair.app.index import bring_up_to_date
from pleinair.app.settings import load
list(bring_up_to_date(load()))
print(draw("two things", seed=1).outcome.ending)
"""


def test_vectors_are_in_a_database_of_their_own_or_in_that_of_the_runs() -> None:
    settings = load(overrides={"cluster.vectors": URL})
    home = home_of(settings)
    assert home.vectors == URL and home.environment["PLEINAIR_CLUSTER__VECTORS"] == URL
    assert index_folder(settings, home).name == build_folder(settings, home).name
    assert index_folder(settings, home) != build_folder(settings, home)
    both = {"cluster.vectors": "database", "cluster.database": f"{URL}s"}
    assert home_of(load(overrides=both)).vectors == f"{URL}s"
    local = home_of(load())
    assert not local.vectors and index_folder(load(), local) == build_folder(load(), local)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vectors": "database"}, "needs cluster.database"),
        ({"vectors": "vectors.faiss"}, r"must be a URL such as postgresql://.*, or 'database'"),
        ({"vectors": f"{URL}?password=x"}, "must have no password"),
        ({"hnsw": "often"}, "cluster.hnsw"),
    ],
)
def test_other_values_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(overrides={f"cluster.{key}": value for key, value in values.items()})


def test_a_missing_package_is_named_before_a_run_begins(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_CLUSTER__VECTORS", URL)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(PleinairError, match="psycopg") as error:
        validate("two things")
    assert "pleinair[cluster]" in error.value.remedy
    assert validate("two things", graph="direct")  # which searches no library


def test_without_the_setting_nothing_of_postgres_is_imported(place: Path) -> None:
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
