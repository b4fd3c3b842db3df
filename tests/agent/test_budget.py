"""Limits are named before the spend that would pass them."""

from typing import Any

import pytest

from pleinair.agent.budget import PICTURE, PICTURE_AND_CHECK, QUESTION, limit, seconds_left, total
from pleinair.agent.state import State
from pleinair.tools.types import Attempt, Budget, GenerateRequest, Picture, Usage

DONE = Attempt(
    number=0,
    request=GenerateRequest(prompt="p", height=8, width=8, num_inference_steps=1, guidance_scale=1, seed=0),
    picture=Picture(sha256="0" * 64, width=8, height=8),
    seconds=1,
)


def state(made: int = 0, **budget: Any) -> State:
    spent = [Usage(images=made, mllm_calls=2, tokens=100, usd=0.5, seconds=3)]
    done = [DONE.model_copy(update={"number": n}) for n in range(made)]
    return State(prompt="p", budget=Budget(**budget), attempts=done, usage=spent)


@pytest.mark.parametrize(
    ("budget", "spend", "expected"),
    [
        ({"attempts": 2}, PICTURE, None),
        ({"attempts": 1}, PICTURE, "attempts"),
        ({"attempts": 1}, QUESTION, None),
        ({"images": 1}, PICTURE, "images"),
        ({"images": 2}, PICTURE, None),
        ({"mllm_calls": 2}, QUESTION, "mllm_calls"),
        ({"mllm_calls": 3}, PICTURE_AND_CHECK, None),
        ({"tokens": 100}, QUESTION, "tokens"),
        ({"tokens": 101}, QUESTION, None),
        ({"usd": 0.5}, PICTURE, "usd"),
        ({"seconds": 3.0}, PICTURE, "seconds"),
        ({"seconds": 3.1}, PICTURE, None),
    ],
)
def test_names_the_limit(budget: dict[str, Any], spend: Usage, expected: str | None) -> None:
    assert limit(state(made=1, **budget), spend) == expected


def test_an_empty_budget_allows_nothing() -> None:
    assert limit(state(attempts=0), PICTURE) == "attempts"


def test_usage_adds_up_field_by_field() -> None:
    assert total([Usage(images=1, usd=0.5), Usage(images=2, tokens=7)]) == Usage(images=3, usd=0.5, tokens=7)


def test_seconds_left_is_infinite_without_a_limit() -> None:
    assert seconds_left(state()) == float("inf")
    assert seconds_left(state(seconds=10)) == 7
