"""The bound on ImageRAG's MLLM calls is the number that the graph makes at worst."""

from pathlib import Path
from typing import Any

import pytest
from support.fake_engines import ListRetriever, SquareGenerator, call
from support.recording_chat import ImageRAGAnswers, recording

from pleinair.agent.context import Context
from pleinair.app.estimate.cost import Range
from pleinair.app.estimate.imagerag import imagerag_calls
from pleinair.app.settings import load
from pleinair.graphs import imagerag
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Hit


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({}, 7),
        ({"rounds": 2, "tries": 1}, 12),
        ({"rerank": True, "captions": 2}, 10),
        ({"rephrase_only": True}, 4),
        ({"mode": "generation", "retrieve_by": "concepts"}, 3),
    ],
)
def test_the_most_calls_of_imagerag_are_reached_by_a_model_that_fails_at_first(
    tmp_path: Path, options: dict[str, Any], calls: int
) -> None:
    """Every other answer does not fit its schema, and every list but the last is empty."""
    settings = load("pocket", {f"imagerag.{name}": value for name, value in options.items()})
    rounds = settings.imagerag.rounds
    images = Range(high=rounds + (settings.imagerag.mode == "draft_first"))
    assert imagerag_calls(settings, images).high == calls
    bad: list[Any] = [{"captions": 3}, None] * 9
    empty = ["", "", None] * rounds if settings.imagerag.tries == 3 else [None] * rounds
    model = recording(
        ImageRAGAnswers(
            "robin",
            "taxi",
            "daisy",
            Decision=bad,
            MissingConcepts=empty,
            Captions=bad,
            Rephrasing=bad,
            Ranking=[{"order": [1]}] * 9,
        )
    )
    hits = {
        name: [Hit(id=f"{name}-{n}.png", score=0.5) for n in range(3)] for name in ("robin", "taxi", "daisy")
    }
    photos = {f"a photo of a {name}": found for name, found in hits.items()}
    context = Context(
        model=model,
        generator=SquareGenerator(3),
        retriever=ListRetriever(hits | photos),
        store=ArtifactStore(tmp_path / "artifacts"),
        imagerag=settings.imagerag,
    )
    call(imagerag.graph, context, "a robin by a taxi and a daisy")
    assert len(model.calls) == calls


def test_the_note_has_the_most_calls_without_repairs() -> None:
    images = Range(low=1, high=2)
    assert imagerag_calls(load("pocket"), images).note == "at most 5 if no answer needs a repair"
    by_prompt = load("pocket", {"imagerag.retrieve_by": "prompt", "imagerag.mode": "generation"})
    assert imagerag_calls(by_prompt, Range(low=1, high=1)) == Range(low=0, high=0)
