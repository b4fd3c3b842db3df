"""Calls and tokens of both flows: published rules, and the requests that a real server was sent."""

from pathlib import Path
from typing import Any

import pytest
from support.fake_engines import decomposition, make_context, rows
from support.recording_chat import ImageRAGAnswers

from pleinair.evals.cases import Case
from pleinair.evals.scale import mllm
from pleinair.evals.scale.mllm import SentImage, _Column, _Run, _serving, patches_of, summarise, tiles_of
from pleinair.tools.types import Hit

CASE = Case("rare-0", "rare", "a velmora finch", ("velmora finch",), 3)


@pytest.mark.parametrize(
    ("size", "low", "high", "patches"),
    [
        ((1024, 1024), 85, 765, 1024),  # https://platform.openai.com/docs/guides/images-vision
        ((2048, 4096), 85, 1105, 1536),
        ((512, 512), 85, 255, 256),
        ((64, 64), 85, 255, 4),
    ],
)
def test_images_count_by_the_published_rules(
    size: tuple[int, int], low: int, high: int, patches: int
) -> None:
    assert tiles_of(SentImage(size, "low")) == low
    assert tiles_of(SentImage(size, "high")) == tiles_of(SentImage(size)) == high
    assert patches_of(SentImage(size)) == patches


def measured(folder: Path, name: str) -> _Run:
    """Run a flow with scripted engines; the draft lacks the concept."""
    answers, judged = ImageRAGAnswers("velmora finch"), list[str]()

    def policy(schema: str, payload: dict[str, Any], images: int) -> dict[str, Any] | str:
        if schema == "Decomposition":
            return decomposition("velmora finch")
        if schema == "Critique":
            judged.append(schema)
            return rows(payload, lambda _: len(judged) > 1)
        return answers(schema, payload)

    hits = {text: [Hit(id="a", score=0.9)] for text in ("velmora finch", "a photo of a velmora finch")}
    context = make_context(folder, policy, hits)
    with _serving(context.model) as server:
        column = _Column.build(name, context, server, 1024, *mllm.FLOWS[name])
        output = column.run(CASE)
        return _Run(CASE, output, True, column.calls())


def test_both_flows_are_counted_as_they_are_sent(tmp_path: Path) -> None:
    ours, theirs = (measured(tmp_path / name, name) for name in ("pleinair", "imagerag"))
    assert [len(call.images) for call, _ in ours.calls] == [0, 1, 1]
    assert {image for call, _ in ours.calls for image in call.images} == {SentImage((512, 512), "low")}
    assert [len(call.images) for call, _ in theirs.calls] == [1, 1, 1]
    assert {image for call, _ in theirs.calls for image in call.images} == {SentImage((1024, 1024), "high")}
    assert all(CASE.prompt in call.text and "description" in call.text for call, _ in ours.calls)
    figures = summarise({"pleinair": [ours], "imagerag": [theirs]})
    assert figures["ratios"]["imagerag"]["tiles"]["ratio"] == pytest.approx(3 * 765 / (2 * 85))
    assert figures["ratios"]["imagerag"]["same_tiles"]["ratio"] == pytest.approx(3 / 2)
    assert figures["columns"]["pleinair"]["images"] == figures["columns"]["imagerag"]["images"] == 2
