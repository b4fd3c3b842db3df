"""A commit is asked for once: what is whole in the cache is loaded without a word to the hub."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_hub import COMMIT, Hub, cached, reach, serving, weights

from pleinair.tools.model_files.hub import Source
from pleinair.tools.model_files.integrity import of_part

MODEL = "tests/part"
FILES = {"config.json": b"{}", "model.safetensors": weights(), "merges.txt": b"a b\n"}
PATTERNS = ("*.json", "*.safetensors", "*.txt")
SOURCE = Source(model=MODEL, revision=COMMIT)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give an empty cache, and a hub that has the model."""
    with serving({MODEL: FILES}) as address:
        reach(address, tmp_path / "hub", monkeypatch)
        yield tmp_path / "hub"


def fetched() -> set[str]:
    folder = SOURCE.fetch(PATTERNS, (), lambda folder: of_part(folder, "."))
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_a_commit_is_asked_for_once(cache: Path) -> None:
    assert fetched() == set(FILES)
    assert Hub.asked
    Hub.asked.clear()
    assert fetched() == set(FILES) and SOURCE.fetch(("config.json",))
    assert Hub.asked == []


def test_a_cache_without_a_list_of_files_is_not_asked_for_either(cache: Path) -> None:
    cached(cache, MODEL, FILES)
    assert fetched() == set(FILES)
    assert SOURCE.fetch(("config.json", "*.txt")).is_dir()
    assert Hub.asked == []


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("listed", [True, False])
def test_what_is_missing_is_fetched(cache: Path, gone: str, listed: bool) -> None:
    if listed:
        fetched()
    else:
        cached(cache, MODEL, FILES)
    snapshot = cache / "models--tests--part" / "snapshots" / COMMIT
    (snapshot / gone).resolve().unlink()
    (snapshot / gone).unlink()
    assert fetched() == set(FILES)
    assert f"GET resolve {gone}" in Hub.asked


def test_a_file_that_no_check_knows_is_missed_where_the_files_were_listed(cache: Path) -> None:
    fetched()
    (cache / "models--tests--part" / "snapshots" / COMMIT / "merges.txt").unlink()
    assert fetched() == set(FILES)


def test_names_are_listed_without_asking_where_they_are_known(cache: Path) -> None:
    assert sorted(SOURCE.names()) == sorted(FILES)
    fetched()
    Hub.asked.clear()
    assert sorted(SOURCE.names()) == sorted(FILES) and Hub.asked == []
    assert sorted(Source(model=MODEL, revision="main", allow_branch=True).names()) == sorted(FILES)
    assert Hub.asked  # what a branch means may have changed
    offline = Source(model=MODEL, revision=COMMIT, local_files_only=True)
    shutil.rmtree(cache / "models--tests--part" / "trees")
    assert sorted(offline.names()) == sorted(FILES)
