"""A retriever from plain words: which parts are asked, in which order, and where it abstains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError
from support.fake_retriever import Shelf, ids

from pleinair.tools.retrieval.compose import RetrievalOptions, compose, threshold_of
from pleinair.tools.retrieve import retrieve
from pleinair.tools.types import BadInput, Concept, Hit

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

CAPTIONS = {"a": "a wren", "b": "a finch", "c": "a finch in the snow", "d": "a cat"}
TURNS = {"a": 0.0, "b": 30.0, "c": 31.0, "d": 90.0}


def vector(id: str) -> Vectors:
    return np.array([np.cos(np.radians(TURNS[id])), np.sin(np.radians(TURNS[id]))], np.float32)


def found(query: str, k: int = 4, second: Shelf | None = None, **options: Any) -> list[Hit]:
    shelf = Shelf("dacb", CAPTIONS, b="CC0", c="CC0", d="CC0")  # scores .9, .8, .7, .6
    wanted = RetrievalOptions(**{"deduplicate": 0.0} | options)
    return compose(wanted, shelf, vector, second).search(query, k)


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, "dacb"),
        ({"method": "lexical"}, "bc"),
        ({"method": "hybrid"}, "bcda"),
        ({"rerank": "bm25"}, "bcda"),
        ({"licenses": ("cc0",)}, "dcb"),
        ({"deduplicate": 0.999}, "dac"),
        ({"method": "lexical", "deduplicate": 0.999}, "b"),
        ({"method": "hybrid", "deduplicate": 0.999, "licenses": ("CC0",)}, "bd"),
        ({"method": "hybrid", "licenses": ("CC0",), "rerank": "bm25"}, "bcd"),
    ],
)
def test_each_word_does_its_part(options: dict[str, Any], order: str) -> None:
    assert ids(found("a finch", **options)) == order


def test_two_encoders_are_taken_in_turn() -> None:
    second = Shelf("bd", CAPTIONS, b="CC0", d="CC0")
    assert ids(found("a finch", 9, second, method="both")) == "dbac"
    assert ids(found("a finch", 9, second, method="both", licenses=("CC0",))) == "dbc"
    with pytest.raises(BadInput, match="second encoder"):
        found("a finch", method="both")


def abstains(query: str, **options: Any) -> bool:
    wanted = RetrievalOptions(**options)
    retriever = compose(wanted, Shelf("dacb", CAPTIONS), vector)
    concept = Concept(name=query, caption=query)
    return retrieve(concept, retriever=retriever, k=4, threshold=threshold_of(wanted)).abstained


@pytest.mark.parametrize(
    ("query", "options", "wanted"),
    [
        ("a zebra", {"threshold": 0.85}, False),
        ("a finch", {"threshold": 0.95}, True),
        ("a finch", {"method": "lexical", "threshold": 0.95}, False),
        ("a zebra", {"method": "lexical"}, True),
        ("a finch", {"method": "hybrid", "threshold": 0.95}, False),
        ("a zebra", {"method": "hybrid", "threshold": 0.95}, True),
        ("a zebra", {"method": "hybrid", "threshold": 0.85}, False),
    ],
)
def test_where_it_abstains(query: str, options: dict[str, Any], wanted: bool) -> None:
    assert abstains(query, **options) is wanted


def test_the_floor_keeps_weak_hits_out_of_a_fusion() -> None:
    assert ids(found("a zebra", method="hybrid", threshold=0.75)) == "da"


@pytest.mark.parametrize(
    "wrong",
    [{"method": "best"}, {"rerank": "llm"}, {"deduplicate": 1.5}, {"threshold": 2}, {"license": ["CC0"]}],
)
def test_what_it_does_not_know_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetrievalOptions(**wrong)
