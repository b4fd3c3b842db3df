"""Outcomes of 0.1, whose reasons held what `ending` and `limit` hold now; errors with a remedy."""

import pickle
from typing import Any

import pytest

from pleinair.tools.types import (
    Attempt,
    BadInput,
    GenerateRequest,
    Outcome,
    Picture,
    Refused,
    Usage,
    limit_reached,
)

BEST = Attempt(
    number=0,
    request=GenerateRequest(prompt="p", height=8, width=8, num_inference_steps=1, guidance_scale=1, seed=0),
    picture=Picture(sha256="0" * 64, width=8, height=8),
    seconds=1,
).model_dump(mode="json")
UNCHECKED = "the result is not checked by this graph"


@pytest.mark.parametrize(
    ("reason", "best", "expected"),
    [
        ("mllm_calls", BEST, ("stopped", "mllm_calls", "the limit on MLLM calls is reached")),
        ("usd", None, ("stopped", "usd", "the limit on US dollars is reached")),
        (
            "drawn without a reference: images",
            BEST,
            ("stopped", "images", "drawn without a reference: the limit on images is reached"),
        ),
        (UNCHECKED, BEST, ("unchecked", None, UNCHECKED)),
        (
            f"{UNCHECKED}; no caption contains 'x'",
            BEST,
            ("unchecked", None, f"{UNCHECKED}; no caption contains 'x'"),
        ),
        (UNCHECKED, None, ("stopped", None, UNCHECKED)),
        ("no match: seconds", BEST, ("stopped", None, "no match: seconds")),
    ],
)
def test_an_outcome_of_an_earlier_version_is_converted(
    reason: str, best: Any, expected: tuple[str, ...]
) -> None:
    outcome = Outcome.model_validate({"ending": "stopped", "reason": reason, "best": best})
    assert (outcome.ending, outcome.limit, outcome.reason) == expected
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome


@pytest.mark.parametrize(("ending", "reason"), [("failed", "attempts"), ("stopped", "attempts")])
def test_an_outcome_of_today_is_left_as_it_is(ending: Any, reason: str) -> None:
    outcome = Outcome(ending=ending, reason=reason, limit=None)
    assert (outcome.ending, outcome.reason, outcome.limit) == (ending, reason, None)


def test_a_limit_is_stated_with_its_amount_and_unit() -> None:
    assert limit_reached("attempts", 1) == "the limit of 1 attempt is reached"
    assert limit_reached("tokens", 1_000_000) == "the limit of 1,000,000 tokens is reached"
    assert limit_reached("usd", 0.05) == "the limit of 0.05 US dollars is reached"
    assert limit_reached("seconds", 60.0) == "the limit of 60 seconds is reached"
    assert limit_reached("mllm_calls") == "the limit on MLLM calls is reached"


def test_an_error_states_what_is_wrong_and_then_what_to_do() -> None:
    error = BadInput("seed = -1: wanted 0 or more", "Choose another seed.")
    assert str(error) == "seed = -1: wanted 0 or more. Choose another seed."
    assert (error.message, error.remedy) == ("seed = -1: wanted 0 or more", "Choose another seed.")
    assert (str(BadInput("no more")), BadInput("no more").remedy) == ("no more", "")


def test_a_copy_of_an_error_keeps_its_fields() -> None:
    error = Refused("no", "Ask another model.")
    error.spent = Usage(images=1)
    for other in (pickle.loads(pickle.dumps(error)), error.reworded("no")):
        assert type(other) is Refused
        assert (str(other), other.remedy, other.spent) == (str(error), error.remedy, error.spent)
    assert str(error.reworded("never")) == "never. Ask another model."
