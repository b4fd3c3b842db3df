"""Sub-queries of captions for the adaptor's training: stored one by one, several calls at once."""

import threading
from pathlib import Path
from typing import Any

import pytest
from support.recording_chat import payloads, recording

from pleinair.tools.errors import Unavailable
from pleinair.tools.retrieval.crossmodal.examples import MOST_FAULTS, Answer, AnswerBook, Example
from pleinair.tools.types import PleinairError


class Stop(Exception):
    """What a progress callback raises to stop."""


def by_word(_: str, payload: dict[str, Any]) -> dict[str, Any] | str:
    """Answer a caption with its words; decline "bad"."""
    caption = payload["prompt"]
    return "I may not." if caption == "bad" else {"subqueries": caption.split()}


def test_an_image_has_the_sub_queries_of_all_its_captions(tmp_path: Path) -> None:
    captions = {"1.png": "red kite\nbeach", "2.png": "beach", "3.png": "bad", "4.png": "bad\n\nkite"}
    book, model = AnswerBook(tmp_path), recording(by_word)
    assert book.missing(captions) == ["red kite", "beach", "bad", "kite"]
    assert book.ask_all(book.missing(captions), model).mllm_calls == 5  # "bad" is asked twice
    assert book.missing(captions) == []
    assert book.examples(captions) == [
        Example("1.png", captions["1.png"], ("red", "kite", "beach")),
        Example("2.png", "beach", ("beach",)),
        Example("4.png", captions["4.png"], ("kite",)),
    ]
    assert (book.empty, book.answers["bad"]) == (1, Answer((), "I may not."))


def test_stopped_captions_continue_without_repeating_calls(tmp_path: Path) -> None:
    captions = {"1.png": "cat", "2.png": "bad", "3.png": "cat", "4.png": "dog"}
    model = recording(by_word)

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise Stop

    book = AnswerBook(tmp_path)
    with pytest.raises(Stop):
        book.ask_all(book.missing(captions), model, on_progress=stop)
    assert AnswerBook(tmp_path).missing(captions) == ["bad", "dog"]
    with (tmp_path / "subqueries.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"caption": "dog", "subq')
    book = AnswerBook(tmp_path)
    book.ask_all(book.missing(captions), model)
    assert [payloads(sent)[-1]["prompt"] for _, _, sent in model.calls] == ["cat", "bad", "bad", "dog"]
    again = AnswerBook(tmp_path)
    assert [example.subqueries for example in again.examples(captions)] == [("cat",), ("cat",), ("dog",)]
    assert AnswerBook(tmp_path, "whole_phrases").missing(captions) == ["cat", "bad", "dog"]


def test_several_captions_are_asked_about_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(3, timeout=300)

    def together(_: str, payload: dict[str, Any]) -> dict[str, Any]:
        barrier.wait()
        return {"subqueries": [payload["prompt"]]}

    book = AnswerBook(tmp_path)
    book.ask_all(list("abcdef"), recording(together), at_once=3)
    assert sorted(AnswerBook(tmp_path).answers) == list("abcdef")


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("most", [0, 1, 3, 5])
def test_captions_keep_to_the_budget(most: int, at_once: int, tmp_path: Path) -> None:
    book, model = AnswerBook(tmp_path), recording(by_word)
    spent = book.ask_all(
        ["a", "bad", "b", "c", "d"],
        model,
        at_once=at_once,
        may_call=lambda usage: usage.mllm_calls + 1 <= most,
    )
    assert spent.mllm_calls == len(model.schemas) == most
    assert len(book.answers) == len(AnswerBook(tmp_path).answers) >= most - 1


def test_an_error_of_one_call_keeps_the_answers_of_the_others(tmp_path: Path) -> None:
    def failing(_: str, payload: dict[str, Any]) -> dict[str, Any]:
        if payload["prompt"] == "b":
            raise Unavailable("no server")
        return {"subqueries": [payload["prompt"]]}

    with pytest.raises(Unavailable, match="no server"):
        AnswerBook(tmp_path).ask_all(list("abcdefgh"), recording(failing), at_once=4)
    stored = AnswerBook(tmp_path).answers
    assert {"a", "c"} <= set(stored) and "b" not in stored


def test_a_model_that_answers_nothing_usable_ends_it(tmp_path: Path) -> None:
    captions = [f"caption {number}" for number in range(100)]
    model = recording(lambda *_: "I may not.")
    with pytest.raises(PleinairError, match=rf"gave {MOST_FAULTS} captions in a row no sub-queries"):
        AnswerBook(tmp_path).ask_all(captions, model)
    assert len(AnswerBook(tmp_path).answers) == MOST_FAULTS
