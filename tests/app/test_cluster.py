from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pleinair.app.api import home, validate
from pleinair.app.paths import Paths
from pleinair.app.settings import load
from pleinair.tools.types import BadInput


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("objects", "bucket/folder", "must be a URL"),
        ("objects", "https://example.org/a", "must be a URL"),
        ("objects", "s3://", "must be a URL"),
        ("objects", "s3://key:secret@bucket/a", "passwords are not accepted"),
        ("objects", "s3://key@bucket/a", "passwords are not accepted"),
        ("objects", "s3://bucket/a?token=1", "credentials come from the environment"),
        ("database", "mysql://host/runs", "must be a URL such as postgresql"),
        ("database", "postgresql://host", "must be a URL such as postgresql"),
        ("database", "postgresql://[host/runs", "must be a URL such as postgresql"),
        ("database", "postgresql://user:secret@host/runs", "passwords are not accepted"),
        ("database", "postgresql://user@host/runs?password=secret", "PGPASSWORD"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(key: str, value: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        load(overrides={f"cluster.{key}": value})


def test_urls_of_a_cluster_are_those_of_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_CLUSTER__OBJECTS", "s3://bucket/shared/")
    monkeypatch.setenv("PLEINAIR_CLUSTER__DATABASE", "postgresql://me@host:5432/runs")
    paths = home()
    assert (paths.objects, paths.database) == ("s3://bucket/shared", "postgresql://me@host:5432/runs")
    assert (
        paths.pictures("20261129-120000-0123abcd")
        == "s3://bucket/shared/runs/20261129-120000-0123abcd/pictures"
    )
    assert paths.input_images == "s3://bucket/shared/given"
    assert paths.environment == {
        "PLEINAIR_HOME": str(paths.home),
        "PLEINAIR_CLUSTER__OBJECTS": "s3://bucket/shared",
        "PLEINAIR_CLUSTER__DATABASE": "postgresql://me@host:5432/runs",
    }


def test_images_are_in_the_home_by_default(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert paths.pictures("20261129-120000-0123abcd") == tmp_path / "runs/20261129-120000-0123abcd/pictures"
    assert paths.input_images == tmp_path / "given"


def test_a_request_cannot_choose_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="cluster.objects = 'memory://a'") as error:
        validate("a poppy", overrides={"cluster.objects": "memory://a"})
    assert "PLEINAIR_CLUSTER__OBJECTS" in error.value.remedy
    monkeypatch.setenv("PLEINAIR_CLUSTER__OBJECTS", "memory://a")
    request = validate("a poppy", overrides={"cluster.objects": "memory://a"})
    assert "cluster" not in request.model_dump()["settings"]


def test_nothing_of_the_extra_is_imported_without_a_url() -> None:
    code = (
        "import json, sys\nfrom pleinair.app.api import draw, home\n"
        "draw('a poppy', seed=1, overrides={'budget.attempts': 1})\n"
        "names = ('obstore', 'psycopg', 'psycopg_pool', 'pgvector', 'ray', 's3fs')\n"
        "print(json.dumps([name for name in names if name in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.splitlines()[-1]) == []
