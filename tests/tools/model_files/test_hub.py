"""Only a download contacts the hub; everything else reads the cache, and refuses what is not complete."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_hub import COMMIT, Hub, cached, connect, serving, weights

from pleinair.tools.model_files.hub import NotDownloaded, Source
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


def files(source: Source = SOURCE) -> set[str]:
    folder = source.require_files(PATTERNS, (), lambda folder: find_part_faults(folder, "."))
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_a_download_is_read_without_a_request(cache: Path) -> None:
    with pytest.raises(NotDownloaded, match="is not downloaded"):
        files()
    assert Hub.requests == []
    SOURCE.download(PATTERNS)
    assert Hub.requests
    Hub.requests.clear()
    assert files() == set(FILES) and SOURCE.require_files(("config.json",))
    assert Hub.requests == []


def test_a_branch_is_that_of_its_last_download(cache: Path) -> None:
    branch = Source(model=MODEL, revision="main", allow_branch=True)
    for read in (lambda: files(branch), lambda: branch.id):
        with pytest.raises(NotDownloaded):
            read()
    branch.download(PATTERNS)
    Hub.requests.clear()
    assert (files(branch), branch.id) == (set(FILES), f"{MODEL}@{COMMIT}")
    assert Hub.requests == []


def test_a_cache_without_a_list_of_files_needs_no_request(cache: Path) -> None:
    cached(cache, MODEL, FILES)
    assert files() == set(FILES)
    assert SOURCE.require_files(("config.json", "*.txt")).is_dir()
    assert Hub.requests == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "merges.txt"])
@pytest.mark.parametrize("has_list", [True, False])
def test_missing_files_are_refused_and_a_download_brings_them(cache: Path, name: str, has_list: bool) -> None:
    if has_list:
        SOURCE.download(PATTERNS)
    else:
        cached(cache, MODEL, FILES)
    snapshot = cache / "models--tests--part" / "snapshots" / COMMIT
    (snapshot / name).resolve().unlink()
    (snapshot / name).unlink()
    Hub.requests.clear()
    if has_list or name != "merges.txt":  # without a list no check covers it
        with pytest.raises(NotDownloaded, match="is not complete"):
            files()
    assert Hub.requests == []
    assert SOURCE.missing_listed(PATTERNS) == ({name: len(FILES[name])} if has_list else None)
    SOURCE.download(PATTERNS)
    assert files() == set(FILES)
    assert f"GET resolve {name}" in Hub.requests


def test_names_in_the_cache_need_no_request(cache: Path) -> None:
    assert SOURCE.names() == [] and Hub.requests == []
    assert sorted(SOURCE.names(online=True)) == sorted(FILES)
    SOURCE.download(PATTERNS)
    Hub.requests.clear()
    assert sorted(SOURCE.names()) == sorted(FILES) and Hub.requests == []
    assert sorted(Source(model=MODEL, revision="main", allow_branch=True).names(online=True)) == sorted(FILES)
    assert Hub.requests  # what a branch means may have changed
    shutil.rmtree(cache / "models--tests--part" / "trees")
    assert sorted(SOURCE.names()) == sorted(FILES)
