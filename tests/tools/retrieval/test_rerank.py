"""Re-ranking of hits by the MLLM."""

from typing import Any

import pytest
from support.fake_engines import ScriptedChat
from support.fake_retriever import ids

from pleinair.tools.retrieval.rerank import rerank
from pleinair.tools.types import Hit, ModelFault

HITS = [Hit(id=id, score=0.5) for id in "abcd"]


def ranked(answer: Any, images: int = 4) -> str:
    model = ScriptedChat(policy=lambda *_: answer)
    hits, usage = rerank("a finch", HITS, [b"png"] * images, model=model)
    assert usage.mllm_calls == 1
    return ids(hits)


@pytest.mark.parametrize(
    ("order", "expected"),
    [([3, 1], "cabd"), ([9, 0, -1, 2], "bacd"), ([], "abcd"), ([2, 2, 4], "bdac"), ([3, 0, 1], "abcd")],
)
def test_hits_in_the_models_order_come_before_all_others(order: list[int], expected: str) -> None:
    assert ranked({"order": order}) == expected


def test_an_image_that_was_not_shown_is_ignored() -> None:
    assert ranked({"order": [4, 2]}, images=2) == "bacd"


def test_prose_changes_nothing_and_is_counted() -> None:
    assert ranked("I can't tell.") == "abcd"


def test_a_malformed_ranking_is_a_model_fault() -> None:
    with pytest.raises(ModelFault):
        ranked({"order": "first"})
