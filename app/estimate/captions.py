"""Estimate of what the captions of a library's images take, before the first MLLM call."""

from __future__ import annotations

from collections.abc import Iterator

from pleinair.app.estimate.cost import Range, cost_of_calls, tokens_of_calls
from pleinair.app.estimate.estimate import RETRIED
from pleinair.app.estimate.tokens import tokens_of_caption
from pleinair.app.settings import Settings
from pleinair.tools.types import Budget, Value


class CaptionEstimate(Value):
    """Estimate of one command; the least is one call an image, the most includes repairs of answers."""

    images: int
    calls: Range
    tokens: Range
    usd: Range
    limits: Budget

    def lines(self) -> Iterator[str]:
        """Yield the lines for a terminal."""
        images = Range(low=self.images, high=self.images, note="copies count once")
        parts = {"images": images, "MLLM calls": self.calls, "tokens": self.tokens, "US dollars": self.usd}
        yield from (part.line(label) for label, part in parts.items())
        limits = self.limits.model_dump(exclude_none=True, exclude={"attempts", "images"})
        if limits:
            yield f"{'limits':<10}  {', '.join(f'{key} {value}' for key, value in limits.items())}"


def estimate_captions(settings: Settings, images: int) -> CaptionEstimate:
    """Estimate the captions of so many images; without a price table or tokens of the backend, say why."""
    budget, choice, each = settings.budget, settings.mllm, tokens_of_caption(settings.mllm)
    calls = Range(low=images, high=RETRIED * images).limited(budget.mllm_calls, "mllm_calls")
    unknown = Range(note=f"not known for the backend {choice.backend!r}")
    tokens = tokens_of_calls(calls, each) if each else unknown
    return CaptionEstimate(
        images=images,
        calls=calls,
        tokens=tokens.limited(budget.tokens, "tokens"),
        usd=cost_of_calls(choice, calls, tokens, (), each).limited(budget.usd, "usd"),
        limits=budget,
    )
