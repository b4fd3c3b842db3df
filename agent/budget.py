"""Budget of a run: what is spent, and which limit forbids the next expense; checked before each."""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.agent.state import State
from pleinair.tools.types import Attempt, Limit, Outcome, Usage, limit_reached

IMAGE = Usage(images=1)
MLLM_CALL = Usage(mllm_calls=1)
IMAGE_AND_CRITIQUE = Usage(images=1, mllm_calls=1)


def total(usage: Sequence[Usage]) -> Usage:
    """Return the sum of usages, field by field."""
    return Usage(**{name: sum(getattr(part, name) for part in usage) for name in Usage.model_fields})


def limit(state: State, spend: Usage) -> Limit | None:
    """Return the first limit that forbids `spend`, None if none does.

    Tokens, money and seconds of a step are not known before it: they forbid once they are reached, so a run
    may exceed them by at most one step.
    """
    budget, spent = state.budget, total(state.usage)
    if spend.images and len(state.attempts) >= budget.attempts:
        return "attempts"
    counted: tuple[Limit, ...] = ("images", "mllm_calls")
    for name in counted:
        maximum = getattr(budget, name)
        if maximum is not None and getattr(spent, name) + getattr(spend, name) > maximum:
            return name
    measured: tuple[Limit, ...] = ("tokens", "usd", "seconds")
    for name in measured:
        maximum = getattr(budget, name)
        if maximum is not None and getattr(spent, name) >= maximum:
            return name
    return None


def stopped(state: State, limit: Limit | None, best: Attempt | None, before: str = "") -> Outcome:
    """Return the outcome of a run that a limit stopped; None is the time, which may run out within a step.

    Args:
        state: of the run, with its budget.
        limit: what `limit` returned.
        best: the image to return.
        before: the first part of the reason.
    """
    limit = limit or "seconds"
    reason = limit_reached(limit, getattr(state.budget, limit))
    return Outcome(ending="stopped", limit=limit, reason=f"{before}{reason}", best=best)


def calls_left(state: State) -> int:
    """Return the remaining MLLM calls; without a limit 2, enough for one question and its repetition."""
    if state.budget.mllm_calls is None:
        return 2
    return state.budget.mllm_calls - total(state.usage).mllm_calls


def seconds_left(state: State) -> float:
    """Return the remaining seconds of work, infinity without a limit."""
    if state.budget.seconds is None:
        return float("inf")
    return state.budget.seconds - total(state.usage).seconds
