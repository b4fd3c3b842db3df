"""Retrievers built from options: which methods and filters apply, in which order, and when they abstain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.fake_retriever import FakeRetriever, corpus, ids

from pleinair.tools.retrieval.compose import DEPTH, RetrievalOptions, alternating, compose, threshold_of
from pleinair.tools.retrieval.fusion import fuse
from pleinair.tools.retrieve import retrieve
from pleinair.tools.types import BadInput, Concept, Hit

CAPTIONS = {"a": "a wren", "b": "a finch", "c": "a finch in the snow", "d": "a cat"}
ANGLES = {"a": 0.0, "b": 30.0, "c": 31.0, "d": 90.0}
RANKINGS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8).map("".join)


def fake() -> FakeRetriever:
    return FakeRetriever("dacb", CAPTIONS, ANGLES, b="CC0", c="CC0", d="CC0")  # scores .9, .8, .7, .6


def search(query: str, k: int = 4, second: FakeRetriever | None = None, **options: Any) -> list[Hit]:
    defaults: dict[str, Any] = {"deduplicate": 0.0, "method": "dense"}
    composed = RetrievalOptions(**defaults | options)
    return compose(composed, corpus(composed, fake(), second)).search(query, k)


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, "dacb"),
        ({"method": "hybrid"}, "bcda"),
        ({"rerank": "bm25"}, "bcda"),
        ({"licenses": ("cc0",)}, "dcb"),
        ({"deduplicate": 0.999}, "dac"),
        ({"method": "hybrid", "deduplicate": 0.999, "licenses": ("CC0",)}, "bd"),
        ({"method": "hybrid", "licenses": ("CC0",), "rerank": "bm25"}, "bcd"),
        ({"method": "hybrid", "threshold": 0.85}, "bcda"),
        ({"method": "auto"}, "bcda"),
        ({"method": "named"}, "dacb"),
    ],
)
def test_each_option_changes_the_hits(options: dict[str, Any], order: str) -> None:
    assert ids(search("a finch", **options)) == order


def test_both_alternates_between_the_filtered_hits_of_two_encoders() -> None:
    second = FakeRetriever("bd", CAPTIONS, ANGLES, b="CC0", d="CC0")
    assert ids(search("a finch", 9, second, method="both")) == "dbac"
    assert ids(search("a finch", 9, second, method="both", licenses=("CC0",))) == "dbc"
    assert ids(search("a finch", 9, second, method="both", deduplicate=0.999)) == "dbac"
    with pytest.raises(BadInput, match=r"needs a table retrieval\.second"):
        search("a finch", method="both")


@pytest.mark.parametrize(("first", "second"), [("", "xy"), ("xy", ""), ("", "")])
def test_an_empty_ranking_hides_no_hit_of_the_other(first: str, second: str) -> None:
    assert ids(alternating(FakeRetriever(first), FakeRetriever(second)).search("q", 9)) == first + second
    assert ids(fuse([ranked(first), ranked(second)])) == first + second


def test_alternating_returns_three_of_either_retriever_with_their_first_score() -> None:
    both = alternating(FakeRetriever("abcde"), FakeRetriever("xbyzw"))
    assert ids(both.search("q", 9)) == "axbcy"
    assert ids(both.search("q", 2)) == "ax"
    assert [hit.score for hit in alternating(FakeRetriever("a"), FakeRetriever("ba")).search("q", 9)] == [
        0.9,
        0.9,
    ]


@pytest.mark.parametrize(
    ("query", "options", "abstains"),
    [
        ("a zebra", {"threshold": 0.85}, False),
        ("a finch", {"method": "dense", "threshold": 0.95}, True),
        ("a finch", {"threshold": 0.95}, False),
        ("a finch", {"method": "hybrid", "threshold": 0.95}, False),
        ("a zebra", {"method": "hybrid", "threshold": 0.95}, True),
        ("a zebra", {"method": "hybrid", "threshold": 0.85}, False),
        ("a finch", {"method": "named", "threshold": 0.85}, False),
        ("a finch", {"method": "named", "threshold": 0.95}, True),
        ("a zebra", {"method": "named", "threshold": 0.85}, True),
    ],
)
def test_a_threshold_makes_retrieval_abstain(query: str, options: dict[str, Any], abstains: bool) -> None:
    composed = RetrievalOptions(**options)
    retriever, concept = compose(composed, corpus(composed, fake())), Concept(name=query, caption=query)
    assert retrieve(concept, retriever=retriever, k=4, threshold=threshold_of(composed)).abstained is abstains


def test_hybrid_leaves_hits_under_the_threshold_out_of_the_fusion() -> None:
    hits = search("a zebra", method="hybrid", threshold=0.75)
    assert ids(hits) == "dacb"
    assert [hit.matched_by for hit in hits] == ["similarity", "similarity", "", ""]
    assert [hit.similarity for hit in hits] == pytest.approx([0.9, 0.8, 0.7, 0.6])


@pytest.mark.parametrize(
    ("caption", "query", "match"),
    [
        ("Biscuit at the beach", "Biscuit", "caption"),
        ("Biscuit at the beach", "a photo of Biscuit, a small brown dog", "caption"),
        ("Biscuit's birthday", "BISCUIT", "caption"),
        ("Zoë and a cherry", "zoe with two cherries", "caption"),
        ("wolves", "a lone wolf", "caption"),
        ("A goat.", "an old goat in the garden", "caption"),
        ("the snow, red apples", "a red apple in the snow", "caption"),
        ("a velmora wren", "a saverel wren", ""),
        ("the photo of a picture", "a photo of a zebra", ""),
        ("the snow", "a zebra in the snow", ""),
        ("snow", "a snow leopard", ""),
        ("a beach", "a red car on the beach", ""),
        ("white wall", "a white tiger", ""),
        ("a striped ginger cat", "a striped ginger kitten", ""),
        ("", "a zebra", ""),
    ],
)
def test_a_caption_matches_by_the_distinctive_words(caption: str, query: str, match: str) -> None:
    captions = {"a": caption, "b": "a wren", "c": "a red wall", "d": "a wren in the snow", "e": "white snow"}
    options = RetrievalOptions(method="hybrid", threshold=1.0, deduplicate=0.0)
    hits = compose(options, corpus(options, FakeRetriever("edcba", captions))).search(query, 9)
    assert next(hit for hit in hits if hit.id == "a").matched_by == match
    assert len(hits) == 5


@pytest.mark.parametrize(("captions", "kind"), [({"a": "a wren"}, "rrf"), ({"a": " "}, ""), ({}, "")])
def test_auto_is_hybrid_where_there_are_captions(captions: dict[str, str], kind: str) -> None:
    options = RetrievalOptions(deduplicate=0.0)
    hits = compose(options, corpus(options, FakeRetriever("ab", captions))).search("a wren", 2)
    assert {hit.score_kind for hit in hits} == {kind}


def test_hybrid_prefers_the_number_of_the_query() -> None:
    captions = {"a": "finches in snow", "b": "a finch on an old fence in snow"}
    options = RetrievalOptions(method="hybrid", deduplicate=0)
    retriever = compose(options, corpus(options, FakeRetriever("ab", captions)))
    assert ids(retriever.search("a finch", 2)) == "ba"
    assert ids(retriever.search("two finches", 2)) == "ab"


def test_hybrid_merges_more_hits_than_are_asked_for() -> None:
    dense, options = fake(), RetrievalOptions(method="hybrid", deduplicate=0)
    retriever = compose(options, corpus(options, dense))
    retriever.search("q", 2)
    retriever.search("q", DEPTH + 1)
    assert dense.sizes == [DEPTH, DEPTH + 1]


@pytest.mark.parametrize(
    "options",
    [{"method": ""}, {"rerank": "llm"}, {"deduplicate": 1.5}, {"threshold": 2}, {"license": ["CC0"]}],
)
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetrievalOptions(**options)


def test_an_unknown_method_is_refused_with_the_choices() -> None:
    with pytest.raises(BadInput, match="Did you mean `dense`") as caught:
        search("a finch", method="dens")
    assert all(name in str(caught.value) for name in ("both", "dense", "hybrid", "lexical"))


@pytest.mark.parametrize("method", ["auto", "both", "dense", "hybrid", "lexical"])
def test_built_in_methods_have_no_arguments(method: str) -> None:
    with pytest.raises(BadInput, match="accepted: nothing"):
        search("a finch", method=method, arguments={"searcher": 1})


def test_empty_arguments_are_left_out_of_the_settings_as_json() -> None:
    assert "arguments" not in RetrievalOptions().model_dump()
    assert RetrievalOptions(arguments={"depth": 3}).model_dump()["arguments"] == {"depth": 3}


def ranked(ranking: str) -> list[Hit]:
    return [Hit(id=id, score=0.5) for id in ranking]


def test_the_fused_score_is_the_sum_of_the_reciprocal_ranks() -> None:
    hits = {hit.id: hit.score for hit in fuse([ranked("abc"), ranked("bd")])}
    assert hits == pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "d": 1 / 62, "c": 1 / 63})
    assert list(hits) == ["b", "a", "d", "c"]


@given(RANKINGS, RANKINGS)
def test_fusion_loses_and_repeats_no_image(first: str, second: str) -> None:
    fused = fuse([ranked(first), ranked(second)])
    assert sorted(ids(fused)) == sorted({*first, *second})
    assert [hit.score for hit in fused] == sorted((hit.score for hit in fused), reverse=True)
    assert ids(fuse([ranked(first), ranked(first)])) == first
