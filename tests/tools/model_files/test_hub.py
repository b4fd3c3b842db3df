"""A commit is requested once: complete files in the cache are used without a request to the hub."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_hub import COMMIT, Hub, cached, connect, serving, weights

from pleinair.tools.model_files.hub import Source
from pleinair.tools.model_files.integrity import find_part_faults

MODEL = "tests/part"
FILES = {"config.json": b"{}", "model.safetensors": weights(), "merges.txt": b"a b\n"}
PATTERNS = ("*.json", "*.safetensors", "*.txt")
SOURCE = Source(model=MODEL, revision=COMMIT)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Provide an empty cache, and a hub that has the model."""
    with serving({MODEL: FILES}) as address:
        connect(address, tmp_path / "hub", monkeypatch)
        yield tmp_path / "hub"


def fetched() -> set[str]:
    folder = SOURCE.fetch(PATTERNS, (), lambda folder: find_part_faults(folder, "."))
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_a_commit_is_requested_once(cache: Path) -> None:
    assert fetched() == set(FILES)
    assert Hub.requests
    Hub.requests.clear()
    assert fetched() == set(FILES) and SOURCE.fetch(("config.json",))
    assert Hub.requests == []


def test_a_cache_without_a_list_of_files_needs_no_request(cache: Path) -> None:
    cached(cache, MODEL, FILES)
    assert fetched() == set(FILES)
    assert SOURCE.fetch(("config.json", "*.txt")).is_dir()
    assert Hub.requests == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("has_list", [True, False])
def test_missing_files_are_fetched(cache: Path, name: str, has_list: bool) -> None:
    if has_list:
        fetched()
    else:
        cached(cache, MODEL, FILES)
    snapshot = cache / "models--tests--part" / "snapshots" / COMMIT
    (snapshot / name).resolve().unlink()
    (snapshot / name).unlink()
    assert fetched() == set(FILES)
    assert f"GET resolve {name}" in Hub.requests


def test_a_file_that_no_check_covers_is_fetched_if_the_list_has_it(cache: Path) -> None:
    fetched()
    (cache / "models--tests--part" / "snapshots" / COMMIT / "merges.txt").unlink()
    assert fetched() == set(FILES)


def test_names_in_the_cache_need_no_request(cache: Path) -> None:
    assert sorted(SOURCE.names()) == sorted(FILES)
    fetched()
    Hub.requests.clear()
    assert sorted(SOURCE.names()) == sorted(FILES) and Hub.requests == []
    assert sorted(Source(model=MODEL, revision="main", allow_branch=True).names()) == sorted(FILES)
    assert Hub.requests  # what a branch means may have changed
    offline = Source(model=MODEL, revision=COMMIT, local_files_only=True)
    shutil.rmtree(cache / "models--tests--part" / "trees")
    assert sorted(offline.names()) == sorted(FILES)
