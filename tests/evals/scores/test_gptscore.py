"""GPTScore with a scripted chat model: what is asked, what counts, what is missing, what is paid for."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.recording_chat import RecordingChat, images_of, payloads, recording

from pleinair.evals.reproduce.generate import Studio
from pleinair.evals.scores.gptscore import GptScore
from pleinair.evals.scores.items import Generated, score
from pleinair.evals.scores.open import measured_by, open_scorer
from pleinair.tools.callbacks import no_callback
from pleinair.tools.images.reading import read_picture
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import BadInput, Usage


@pytest.fixture
def items(tmp_path: Path) -> list[Generated]:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        Image.new("RGB", (32, 32), (60 * number, 0, 0)).save(path)
    return [Generated(path, f"a finch {n}", (paths[3], paths[0])) for n, path in enumerate(paths[:3])]


def answering(*scores: Any) -> RecordingChat:
    """Return a model that rates by the scores in turn; a text is prose."""
    left = list(scores)

    def answer(schema: str, payload: dict[str, Any]) -> dict[str, Any] | str:
        assert schema == "Rating"
        value = left.pop(0)
        return value if isinstance(value, str) else {"reason": "because", "score": value}

    return recording(answer)


def test_ratings_are_scaled_from_0_to_1(items: list[Generated], tmp_path: Path) -> None:
    result = score(items, [GptScore("prompt following", answering(0, 3, 4), tmp_path)])[0]
    assert result.values == (0.0, 0.75, 1.0)
    assert result.name == "GPTScore prompt following, scripted"
    assert (result.n, result.real) == (3, 0)


def test_the_prompt_is_data_and_the_generated_image_alone_is_seen(
    items: list[Generated], tmp_path: Path
) -> None:
    model = answering(4)
    GptScore("prompt following", model, tmp_path).score(items[:1], no_callback)
    messages = model.conversation("Rating")
    assert payloads(messages) == [{"prompt": "a finch 0"}]
    assert images_of(messages) == [[encode_png(read_picture(items[0].image))]]
    assert model.temperatures("Rating") == [0.0]
    instruction = messages[0].text
    for words in ("same subjects", "details correctly", "nothing important out", "setting", "reason first"):
        assert words in instruction


def test_preservation_compares_with_the_first_real_image_and_not_with_the_prompt(
    items: list[Generated], tmp_path: Path
) -> None:
    model = answering(2)
    scorer = GptScore("concept preservation", model, tmp_path)
    assert scorer.needs_truth
    assert scorer.score(items[:1], no_callback) == [0.5]
    messages = model.conversation("Rating")
    assert payloads(messages) == [{}]
    pngs = [encode_png(read_picture(path)) for path in (items[0].truth[0], items[0].image)]
    assert images_of(messages) == [pngs]
    for word in ("shape", "colours", "texture", "face"):
        assert word in messages[0].text


def test_a_refusal_and_an_answer_that_is_no_rating_are_missing(
    items: list[Generated], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = "I cannot judge this image."
    result = score(items, [GptScore("prompt following", answering(refusal, refusal, 7, 2.5, 2), tmp_path)])[0]
    assert [isnan(value) for value in result.values] == [True, True, False]
    assert (result.mean, result.n) == (0.5, 1)
    assert result.note == "2 images have no value"
    assert caplog.text.count("no rating of") == 2


def test_an_answer_is_repaired_once(items: list[Generated], tmp_path: Path) -> None:
    assert GptScore("prompt following", answering(9, 4), tmp_path).score(items[:1], no_callback) == [1.0]


def test_no_rating_is_paid_for_twice_and_a_missing_one_is_asked_for_again(
    items: list[Generated], tmp_path: Path
) -> None:
    first = answering(1, "no", "no", 3)
    GptScore("prompt following", first, tmp_path).score(items, no_callback)
    again = answering(2)
    assert GptScore("prompt following", again, tmp_path).score(items, no_callback) == [0.25, 0.5, 0.75]
    assert len(again.calls) == 1
    Image.new("RGB", (32, 32), "blue").save(items[0].image)
    changed = answering(4)
    assert GptScore("prompt following", changed, tmp_path).score(items, no_callback)[0] == 1.0


def test_answers_are_kept_when_the_model_is_lost(items: list[Generated], tmp_path: Path) -> None:
    with pytest.raises(IndexError):  # of the script, as a connection may be lost
        GptScore("prompt following", answering(1, 2), tmp_path).score(items, no_callback)
    assert GptScore("prompt following", answering(3), tmp_path).score(items, no_callback) == [0.25, 0.5, 0.75]


def test_it_opens_with_a_model_only(tmp_path: Path) -> None:
    names = [
        scorer.name for scorer in open_scorer("gptscore", retriever="", model=answering(), cache=tmp_path)
    ]
    assert names == ["GPTScore concept preservation, scripted", "GPTScore prompt following, scripted"]
    with pytest.raises(BadInput, match="needs a language model"):
        open_scorer("gptscore", retriever="")


def test_answers_are_charged_and_none_is_asked_for_without_money(
    items: list[Generated], tmp_path: Path
) -> None:
    studio = Studio(tmp_path / "out", max_usd=1.0)
    model = answering(4, "prose", "prose", 3)
    scorers = open_scorer("gptscore", retriever="", model=model, cache=tmp_path, meter=studio)
    assert tuple(scorer.name.partition(",")[0] for scorer in scorers) == measured_by("gptscore")
    values = score(items[:2], scorers[1:])[0].values
    assert values[0] == 1.0 and isnan(values[1])
    charged = [Usage(**entry["usage"]) for entry in studio.records]
    assert [usage.mllm_calls for usage in charged] == [1, 2]  # a repair is paid for, too
    studio.charge(Usage(usd=1.0))
    with pytest.raises(BadInput, match="--max-usd 1 is used up"):
        score(items, scorers[1:])
    assert Studio(tmp_path / "out", max_usd=2.0).spent == 1.0  # stored
