"""A library that changes between retrieval and generation: the next hit takes the place; no run fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.fake_engines import call
from support.quick_engines import SIZE, colour

from pleinair.agent.context import Context
from pleinair.agent.state import Output
from pleinair.app.engines import build
from pleinair.app.paths import Paths
from pleinair.app.settings import Settings, load
from pleinair.app.storyboard.words import abstentions
from pleinair.app.trace.trace import AttemptTrace
from pleinair.tools import registry
from pleinair.tools.retrieval.filters import Wrapper
from pleinair.tools.retrieve import search
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Hit, Retriever

PROMPT = "picture 3 and picture 4"
REACT = {"mllm.backend": "talker"}  # a model that calls tools, for prompts of its own grammar
Change = Callable[[Path, str], object]


class Changing(Wrapper):
    """Retriever whose library is changed once, after its first search or listing, by the first hit."""

    def __init__(self, retriever: Retriever, folder: Path, change: Change) -> None:
        super().__init__(retriever)
        self.folder, self.change, self.best = folder, change, ""
        self.changed = False

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        return self._changed(search(self._source, query, k, seed))  # type: ignore[arg-type]

    def entries(self) -> Sequence[Hit]:
        return self._changed([hit for hit in super().entries() if hit.id in ("3.png", "4.png")])

    def _changed(self, hits: list[Hit]) -> list[Hit]:
        if not self.changed:
            self.changed, self.best = True, hits[0].id if hits else "3.png"
            self.change(self.folder, self.best)
        return hits


def touch(folder: Path, id: str) -> None:
    os.utime(folder / id, ns=(1, 1))


def cut(folder: Path, id: str) -> None:
    (folder / id).write_bytes((folder / id).read_bytes()[:40])


def overwrite(folder: Path, id: str) -> None:
    Image.new("RGB", (SIZE, SIZE), colour("another one")).save(folder / id)
    os.utime(folder / id, ns=(1, 1))


def replace_by_folder(folder: Path, id: str) -> None:
    (folder / id).unlink()
    (folder / id).mkdir()


def delete(folder: Path, id: str) -> None:
    (folder / id).unlink()


def add(folder: Path, id: str) -> None:
    Image.new("RGB", (SIZE, SIZE), colour("a new one")).save(folder / "new.png")


def unmount(folder: Path, id: str) -> None:
    folder.rename(folder.with_name("elsewhere"))


def empty(folder: Path, id: str) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def settings_of(graph: str, **overrides: Any) -> Settings:
    model = REACT if graph == "react" else {}
    return load(overrides={"realrag.method": "zero", "imagerag.rounds": 2, **model, **overrides})


def run(context: Context, graph: str) -> Output:
    prompt = "a barn owl and a blue jay" if graph == "react" else PROMPT
    return call(registry.resolve("graph", graph), context, prompt, run_id="run")


def draw(place: Path, graph: str, change: Change, **overrides: Any) -> tuple[Output, str]:
    """Run a graph with a library that changes; return its output and the id of the first hit."""
    settings = settings_of(graph, **overrides)
    context = build(settings, Paths(place / "home"), ArtifactStore(place / "store"))
    changing = Changing(context.retriever, place / "library", change)
    papers = Changing(context.of_papers.retriever, place / "library", change)
    context = context.with_retrievers(changing, papers)
    output = run(context, graph)
    return output, changing.best or papers.best


GRAPHS = ["pleinair", "imagerag", "crossmodal", "realrag", "react"]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("change", [delete, cut, overwrite, replace_by_folder])
def test_the_next_hit_takes_the_place_of_one_that_is_gone(place: Path, graph: str, change: Change) -> None:
    output, best = draw(place, graph, change, **{"retrieval.method": "dense"})
    used = [reference.hit.id for attempt in output.attempts for reference in attempt.request.references]
    assert used and best not in used
    lost = [retrieval for retrieval in output.retrievals if best in retrieval.unavailable]
    assert lost and all(why for retrieval in lost for why in retrieval.unavailable.values())
    assert output.outcome and output.outcome.ending in ("accepted", "unchecked")
    last = AttemptTrace(output.attempts[-1], output.retrievals, [], (), True)
    assert f"Not readable any more: {best}" in abstentions(last)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("change", [touch, add])
def test_a_change_that_leaves_the_image_as_it_was_costs_nothing(
    place: Path, graph: str, change: Change
) -> None:
    output, best = draw(place, graph, change, **{"retrieval.method": "dense"})
    used = [reference.hit.id for attempt in output.attempts for reference in attempt.request.references]
    assert best in used
    assert not any(retrieval.unavailable for retrieval in output.retrievals)


@pytest.mark.parametrize("method", ["auto", "lexical"])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("change", [unmount, empty])
def test_without_the_library_the_run_ends_without_references(
    place: Path, graph: str, change: Change, method: str
) -> None:
    output, _ = draw(place, graph, change, **{"retrieval.method": method})
    assert output.outcome and output.outcome.ending in ("stopped", "unchecked")
    assert output.attempts and not any(attempt.request.references for attempt in output.attempts)
    assert all(retrieval.abstained and retrieval.reason for retrieval in output.retrievals)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("change", [unmount, empty])
def test_a_library_that_is_gone_before_the_first_retrieval_abstains(
    place: Path, graph: str, change: Change
) -> None:
    context = build(settings_of(graph), Paths(place / "home"), ArtifactStore(place / "store"))
    change(place / "library", "")
    output = run(context, graph)
    assert output.attempts and output.outcome and output.outcome.ending in ("stopped", "unchecked")
    assert output.retrievals and all(retrieval.abstained for retrieval in output.retrievals)
