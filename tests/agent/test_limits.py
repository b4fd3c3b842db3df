"""Limits are reported before the expense that would exceed them."""

from typing import Any

import pytest

from pleinair.agent.state import IMAGE, IMAGE_AND_CRITIQUE, MLLM_CALL, State
from pleinair.tools.types import Attempt, Budget, GenerateRequest, Picture, Usage

ATTEMPT = Attempt(
    number=0,
    request=GenerateRequest(prompt="p", height=8, width=8, num_inference_steps=1, guidance_scale=1, seed=0),
    picture=Picture(sha256="0" * 64, width=8, height=8),
    seconds=1,
)


def state(number: int = 0, **budget: Any) -> State:
    spent = [Usage(images=number, mllm_calls=2, tokens=100, usd=0.5, seconds=3)]
    attempts = [ATTEMPT.model_copy(update={"number": n}) for n in range(number)]
    return State(prompt="p", budget=Budget(**budget), attempts=attempts, usage=spent)


@pytest.mark.parametrize(
    ("budget", "spend", "expected"),
    [
        ({"attempts": 2}, IMAGE, None),
        ({"attempts": 1}, IMAGE, "attempts"),
        ({"attempts": 1}, MLLM_CALL, None),
        ({"images": 1}, IMAGE, "images"),
        ({"images": 2}, IMAGE, None),
        ({"mllm_calls": 2}, MLLM_CALL, "mllm_calls"),
        ({"mllm_calls": 3}, IMAGE_AND_CRITIQUE, None),
        ({"tokens": 100}, MLLM_CALL, "tokens"),
        ({"tokens": 101}, MLLM_CALL, None),
        ({"usd": 0.5}, IMAGE, "usd"),
        ({"seconds": 3.0}, IMAGE, "seconds"),
        ({"seconds": 3.1}, IMAGE, None),
    ],
)
def test_the_first_limit_is_reported(budget: dict[str, Any], spend: Usage, expected: str | None) -> None:
    assert state(1, **budget).limit(spend) == expected


def test_an_empty_budget_allows_nothing() -> None:
    assert state(attempts=0).limit(IMAGE) == "attempts"


def test_usage_adds_up_field_by_field() -> None:
    assert Usage.total([Usage(images=1, usd=0.5), Usage(images=2, tokens=7)]) == Usage(
        images=3, usd=0.5, tokens=7
    )


def test_seconds_left_is_infinite_without_a_limit() -> None:
    assert state().seconds_left == float("inf")
    assert state(seconds=10).seconds_left == 7
