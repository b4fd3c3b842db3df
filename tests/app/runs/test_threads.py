"""Concurrent runs in one process: results as of single runs."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support import quick_engines as quick

from pleinair.app.api import draw, home
from pleinair.app.engines import build_backend, build_generator
from pleinair.app.libraries import library_folders
from pleinair.app.settings import load
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.catalogue.library import write_library
from pleinair.tools.retrieval.build import build_index

T = TypeVar("T")
PARTS = ("generator", "encoder", "detector")
TRAINED = all(list((SHIPPED / part).rglob("*.safetensors")) for part in PARTS)

PROMPT = "a blue jay and a waxwing in the snow"  # the second is in no library
# few steps, and tables of no other test: several threads use each backend first
SMALL = {
    "budget.attempts": 2,
    "generator.num_inference_steps": 2,
    "encoder.batch": 17,
    "mllm.error_seed": 17,
}


def at_once(call: Callable[[int], T], count: int) -> list[T]:
    """Call from `count` threads that begin together."""
    gate = threading.Barrier(count)

    def begin(number: int) -> T:
        gate.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.fixture
def pocket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set an empty home for the pocket profile, and a small library of its world."""
    write_library(tmp_path / "library", size=48)
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLEINAIR_PATHS__OUT", str(tmp_path / "out"))
    monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", str(tmp_path / "library"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def generate(graph: str) -> tuple[bytes, list[Any], list[Any]]:
    """Return the image's bytes, each attempt with its ledger, and the retrievals."""
    result = draw(PROMPT, graph=graph, seed=3, overrides=SMALL, strip_metadata=True)
    assert result.picture is not None, result.outcome.reason
    sidecar = json.loads(result.sidecar.read_text(encoding="utf-8"))
    attempts = [
        (attempt["picture"], attempt["request"], attempt["ledger"]) for attempt in sidecar["attempts"]
    ]
    return result.picture.read_bytes(), attempts, sidecar["retrievals"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # other threads may undo the filters of a library during its import
@pytest.mark.skipif(not TRAINED, reason="pocket models not trained yet")
@pytest.mark.usefixtures("pocket")
def test_concurrent_runs_equal_sequential_ones() -> None:
    graphs = ("pleinair", "imagerag", "crossmodal", "react")
    together = at_once(lambda number: generate(graphs[number]), len(graphs))
    assert together == [generate(graph) for graph in graphs]


@pytest.mark.usefixtures("hasty")
def test_concurrent_runs_wait_for_one_index(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides, built = {"encoder.salt": "of this test"}, []

    def record(*args: Any, **kwargs: Any) -> Any:
        index = build_index(*args, **kwargs)
        built.append(index)
        return index

    monkeypatch.setattr("pleinair.tools.retrieval.build.build_index", record)
    results = at_once(lambda seed: draw("two things", seed=seed, overrides=overrides), 4)
    assert {result.outcome.ending for result in results} == {"accepted"}
    assert len(built) == 1 and len(built[0]) == 6


@pytest.mark.usefixtures("place", "hasty")
def test_concurrent_threads_get_one_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    built, init = [], quick.Hashes.__init__

    def counted(self: quick.Hashes, salt: str = "") -> None:
        built.append(self)
        init(self, salt)

    monkeypatch.setattr(quick.Hashes, "__init__", counted)
    choice = load(overrides={"encoder.salt": "of concurrent threads"}).encoder
    encoders = at_once(lambda _: build_backend("encoder", choice), 8)
    assert len(built) == 1 and set(map(id, encoders)) == {id(built[0])}


@pytest.mark.usefixtures("place", "hasty")
def test_concurrent_threads_get_one_worker() -> None:
    settings = load(overrides={"worker.process": True, "generator.pause": 0.01})
    assert len(set(map(id, at_once(lambda _: build_generator(settings), 8)))) == 1


def test_concurrent_threads_get_the_whole_pocket_library(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def few(folder: Path) -> None:
        written.append(folder)
        write_library(folder, size=12)

    monkeypatch.setattr("pleinair.tools.pocket.catalogue.library.write_library", few)
    settings = load(overrides={"library.folder": "pocket"})
    folders = at_once(lambda _: library_folders(settings, home()), 4)
    assert set(folders) == {tuple(map(str, written))} and len(written) == 1
    assert len(list(written[0].glob("*.png"))) == 12
