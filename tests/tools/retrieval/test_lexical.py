"""Words of captions: what matches, which words are ignored, and re-ranking by captions."""

from __future__ import annotations

import math
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_retriever import FakeRetriever, ids

from pleinair.tools.retrieval.caption_index import is_in_number, words
from pleinair.tools.retrieval.lexical import (
    RERANKED,
    CaptionOrder,
    Lexical,
    NumberOrder,
    score_captions,
)
from pleinair.tools.types import BadInput, Hit

CAPTIONS = {
    "a": "A photo of a Purple finch on a branch.",
    "b": "a winter wren in the snow",
    "c": "two finches",
    "d": "",
    "e": "the snow: a finch, a finch and a winter wren",
}


@pytest.fixture
def lexical() -> Lexical:
    return Lexical(FakeRetriever("abcde", CAPTIONS, b="CC0"))


def test_captions_with_a_shared_word_are_hits_best_first(lexical: Lexical) -> None:
    hits = lexical.search("a photo of a purple finch", 9)
    assert ids(hits) == "ace"
    assert hits[0].score > hits[1].score > hits[2].score > 0
    assert [hit.matched_by for hit in hits] == ["caption", "", ""]


def test_a_hit_has_its_metadata(lexical: Lexical) -> None:
    (hit,) = lexical.search("wren", 1)
    assert (hit.id, hit.caption, hit.license) == ("b", CAPTIONS["b"], "CC0")


@pytest.mark.parametrize("query", ["a photo of the picture", "zebra", "...", "!?"])
def test_without_a_word_that_counts_there_is_no_hit(lexical: Lexical, query: str) -> None:
    assert lexical.search(query, 9) == []


@pytest.mark.parametrize(("query", "k"), [("finch", 0), ("finch", -1), ("", 3), (" \n", 3)])
def test_invalid_queries_are_refused(lexical: Lexical, query: str, k: int) -> None:
    with pytest.raises(BadInput):
        lexical.search(query, k)


@pytest.mark.parametrize("captions", [{}, {"a": ""}, {"a": "", "b": "of the"}])
def test_a_library_without_captions_has_no_hits(captions: dict[str, str]) -> None:
    assert Lexical(FakeRetriever("ab", captions)).search("finch", 3) == []


def test_a_library_of_one_image_works() -> None:
    assert ids(Lexical(FakeRetriever("a", {"a": "a finch"})).search("a finch", 3)) == "a"


def test_equal_scores_are_ordered_by_id() -> None:
    assert ids(Lexical(FakeRetriever("ba", {"b": "a finch", "a": "a finch"})).search("finch", 3)) == "ab"


def test_the_score_is_bm25() -> None:
    """One word, in one of two captions of one and three words: k1 1.5, b 0.75, Lucene's idf."""
    entries = [Hit(id="a", score=0, caption="finch"), Hit(id="b", score=0, caption="red wren flying")]
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    expected = idf / (1 + 1.5 * (1 - 0.75 + 0.75 * 1 / 2))
    assert score_captions(entries, "finch") == pytest.approx([expected, 0])


def test_images_are_the_librarys(lexical: Lexical) -> None:
    assert lexical.open("a").getpixel((0, 0)) == (ord("a"), 0, 0)
    assert ids(lexical.entries()) == "abcde"


@pytest.mark.parametrize(
    "forms",
    """cat cats|fox foxes|cherry cherries|movie movies|wolf wolves|knife knives|glove gloves|shoe shoes
    potato potatoes|horse horses|bus buses|glass glasses|church churches|house houses|box boxes|iris irises
    man men|child children|mouse mice|goose geese|café cafe CAFÉ ＣＡＦÉ|dog dog's dogs’|fly flies|axe axes
    cactus cactuses|dish dishes|toy toys|leaf leaves|prize prizes|person people""".replace("\n", "|").split(
        "|"
    ),
)
def test_forms_of_a_word_are_one_word(forms: str) -> None:
    assert len({tuple(words(form)) for form in forms.split()}) == 1


def test_other_words_stay_apart() -> None:
    apart = "cap cape car care kit kite plan plane pin pine star stare bus bush gas glass cub cube".split()
    assert len({tuple(words(word)) for word in apart}) == len(apart)


@given(st.text(max_size=40))
def test_a_text_in_another_case_or_form_has_the_same_words(text: str) -> None:
    assert words(normalize("NFD", text)) == words(text)
    assert all(word == word.casefold() for word in words(text))


def test_captions_order_the_hits_which_keep_their_scores() -> None:
    fake = FakeRetriever("dbace", CAPTIONS)
    hits = CaptionOrder(fake).search("purple finch", 4)
    assert ids(hits) == "aced"
    assert [hit.score for hit in hits] == pytest.approx([0.7, 0.6, 0.5, 0.9])
    assert fake.sizes == [RERANKED]


@pytest.mark.parametrize(
    ("caption", "query", "is_in"),
    [
        ("two saint bernards in a field", "a Saint Bernard", False),
        ("a saint bernard in a field", "a Saint Bernard", True),
        ("a saint bernard", "two saint bernards", False),
        ("a wolf beside two wolves", "wolf", True),
        ("the fox's den", "fox", True),
        ("two geese\na goose and its mate", "goose", True),
        ("a pug", "wolf", True),
        ("a wolf on a rock", "wolf on the rocks", True),
        ("wolves on the rocks", "wolf on the rocks", False),
        ("", "wolf", True),
    ],
)
def test_captions_in_another_number_than_the_query(caption: str, query: str, is_in: bool) -> None:
    assert is_in_number(caption, query) == is_in


def test_captions_in_another_number_come_last() -> None:
    captions = {"a": "two finches", "b": "a wren", "c": "", "d": "finches in the snow", "e": "a finch"}
    assert ids(NumberOrder(FakeRetriever("dcbae", captions)).search("a finch", 5)) == "cbeda"
    assert ids(NumberOrder(FakeRetriever("dcbae", captions)).search("finches", 5)) == "dcbae"


def test_all_requested_hits_are_ordered() -> None:
    assert ids(CaptionOrder(FakeRetriever("dcba" * 3, CAPTIONS)).search("wren", 12))[:3] == "bbb"


def test_without_captions_the_order_stays() -> None:
    order = CaptionOrder(FakeRetriever("cab"))
    assert ids(order.search("finch", 2)) == "ca"
    assert ids(order.entries()) == "abc"
    assert order.open("a").size == (8, 8)
