"""Misspelt names: what the captions of the library say is meant, and what is no mistake."""

from pathlib import Path

import pytest

from pleinair.tools.retrieval.spelling import (
    Vocabulary,
    is_one_letter_apart,
    load_vocabulary,
    save_vocabulary,
    suggestions,
    vocabulary_of,
)

CAPTIONS = (
    "A saverel wren in the snow",
    "a photo of a telma wren",
    "a kingfisher on a branch",
    "my dog Rexo at the beach",
    "a grey horse, a show",
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return vocabulary_of(CAPTIONS)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a saverel wren at night", []),
        ("a sаverel wren", [("sаverel", "saverel")]),  # a Cyrillic letter
        ("a ѕаvеrеl wren", [("ѕаvеrеl", "saverel")]),
        ("a τelma wren", [("τelma", "telma")]),  # a Greek letter
        ("a Sáverel wren", [("sáverel", "saverel")]),
        ("a savrel wren", [("savrel", "saverel")]),
        ("a saverell wren", [("saverell", "saverel")]),
        ("a tellma wren, a dog", [("tellma", "telma")]),
        ("a tlema wren", [("tlema", "telma")]),
        ("a kingfihser", [("kingfihser", "kingfisher")]),
        ("two kingfishers", []),
        ("a dog reko", [("reko", "rexo")]),
        ("a house", []),  # no horse
        ("the slow town", []),  # no show
        ("a telmas tree", []),
        ("a quetzal in a tree", []),
        ("птица на снегу", []),
        ("a sav wren", []),
    ],
)
def test_a_misspelt_name_is_found(prompt: str, found: list[tuple[str, str]], vocabulary: Vocabulary) -> None:
    words = [(word, meant) for word, meant in suggestions(prompt, vocabulary)]
    assert words == found


@pytest.mark.parametrize(
    ("first", "second", "is_near"),
    [("wren", "wrem", True), ("wren", "wren's", False), ("wren", "rwen", True), ("wren", "wre", True),
     ("wren", "wreen", True), ("wren", "wern", True), ("wren", "wner", False), ("wren", "finch", False)],
)  # fmt: skip
def test_one_letter(first: str, second: str, is_near: bool) -> None:
    assert is_one_letter_apart(first, second) == is_near == is_one_letter_apart(second, first)


def test_a_vocabulary_is_stored_beside_the_index(tmp_path: Path, vocabulary: Vocabulary) -> None:
    assert load_vocabulary(tmp_path) is None
    save_vocabulary(tmp_path, vocabulary)
    assert load_vocabulary(tmp_path) == vocabulary
    (tmp_path / "words.json").write_text('{"words": 1}', encoding="utf-8")
    assert load_vocabulary(tmp_path) is None
