"""Two retrievers at once, and a model that orders what they found."""

from typing import Any

import pytest
from support.fake_engines import ListRetriever, ScriptedChat

from pleinair.tools.retrieval.rerank import Both, rerank
from pleinair.tools.types import Hit, ModelFault

HITS = [Hit(id=id, score=0.5) for id in "abcd"]


def ids(hits: list[Hit]) -> str:
    return "".join(hit.id for hit in hits)


def ranked(answer: Any, pictures: int = 4) -> str:
    model = ScriptedChat(policy=lambda *_: answer)
    hits, usage = rerank("a finch", HITS, [b"png"] * pictures, model=model)
    assert usage.mllm_calls == 1
    return ids(hits)


def both(first: str, second: str) -> Both:
    def shelf(found: str, score: float) -> ListRetriever:
        return ListRetriever({"q": [Hit(id=id, score=score) for id in found]})

    return Both(shelf(first, 0.9), shelf(second, 0.1))


def test_three_of_either_are_taken_in_turn_and_each_once() -> None:
    assert ids(both("abcde", "xbyzw").search("q", 9)) == "axbcy"
    assert ids(both("abc", "xyz").search("q", 2)) == "ax"


@pytest.mark.parametrize(("first", "second"), [("", "xy"), ("xy", ""), ("", "")])
def test_one_empty_shelf_hides_nothing(first: str, second: str) -> None:
    assert ids(both(first, second).search("q", 9)) == first + second


def test_a_hit_keeps_the_score_of_where_it_came_first() -> None:
    assert [hit.score for hit in both("a", "ab").search("q", 9)] == [0.9, 0.1]


@pytest.mark.parametrize(
    ("order", "expected"), [([3, 1], "cabd"), ([9, 0, -1, 2], "bacd"), ([], "abcd"), ([2, 2, 4], "bdac")]
)
def test_what_the_model_names_comes_first_and_nothing_is_lost(order: list[int], expected: str) -> None:
    assert ranked({"order": order}) == expected


def test_a_picture_that_was_not_shown_cannot_be_named() -> None:
    assert ranked({"order": [4, 2]}, pictures=2) == "bacd"


def test_prose_changes_nothing_and_is_paid_for() -> None:
    assert ranked("I can't tell.") == "abcd"


def test_a_misfit_is_a_fault() -> None:
    with pytest.raises(ModelFault):
        ranked({"order": "first"})
