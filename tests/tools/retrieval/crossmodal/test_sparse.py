"""The match rule of captions: whole words in their order, in any case, not stemmed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleinair.tools.retrieval.crossmodal.sparse import satisfaction
from pleinair.tools.types import BadInput

WORDS = st.lists(st.sampled_from(["red", "finch", "snow", "on", "Ärmel"]), min_size=1, max_size=6)


def has(caption: str, subquery: str) -> bool:
    return satisfaction([caption], [subquery]) == [(True,)]


@pytest.mark.parametrize(
    ("caption", "subquery"),
    [
        ("A Purple Finch on snow.", "purple finch"),
        ("two cars, a purple-finch", "Purple finch"),
        ("an old STRASSE at night", "straße"),
        ("a ﬁnch", "finch"),
        ("the dog’s bowl", "dog's bowl"),
        ("red car", "a red car"),
        ("group a", "a"),
        ("a red car\na finch on snow", "finch"),
        ("a finch on snow\n\na red car", "red car"),
    ],
)
def test_a_caption_contains_the_words_of_the_subquery(caption: str, subquery: str) -> None:
    assert has(caption, subquery)


@pytest.mark.parametrize(
    ("caption", "subquery"),
    [
        ("a goldfinch on snow", "finch"),
        ("two finches", "finch"),
        ("a finch that is red", "red finch"),
        ("a red and blue finch", "red finch"),
        ("a finch and a red", "red finch"),
        ("", "finch"),
        ("a finch in red\ncar by a lake", "red car"),
        ("a finch in red\u2028car by a lake", "red car"),
        ("\n", "finch"),
    ],
)
def test_other_words_or_another_order_do_not_match(caption: str, subquery: str) -> None:
    assert not has(caption, subquery)


def test_each_image_has_a_flag_for_each_subquery() -> None:
    captions = ["a red car by a finch", "a finch", "", "snow"]
    vectors = satisfaction(captions, ["red car", "finch"])
    assert vectors == [(True, True), (False, True), (False, False), (False, False)]


@pytest.mark.parametrize("subquery", ["", " … ", "_"])
def test_a_subquery_without_a_word_is_refused(subquery: str) -> None:
    with pytest.raises(BadInput, match="no word to look for"):
        satisfaction(["a finch"], [subquery])


@given(WORDS, WORDS, WORDS)
def test_any_run_of_a_captions_words_matches(before: list[str], inside: list[str], after: list[str]) -> None:
    caption = ", ".join([*before, *inside, *after])
    assert has(caption, " ".join(inside).upper())
