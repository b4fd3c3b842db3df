"""Ranges, and the cost of a run in US dollars: MLLM calls by their tokens, images by their price."""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.app.estimate.history import PastRun, basis, per_call, span
from pleinair.app.estimate.tokens import CallTokens
from pleinair.app.models.pins import HUB_GENERATORS
from pleinair.app.runs.prices import is_local, listed_price
from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.http.prices import MILLION, Price
from pleinair.tools.types import Value


class Range(Value):
    """Least and most of a quantity; None is unknown, and `note` says why."""

    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """Return the range in words."""
        if self.low is None and self.high is None:
            return "unknown"
        if self.high is None:
            return f"at least {_number(self.low)}"
        if self.low == self.high:
            return _number(self.low)
        return f"{_number(self.low)} to {_number(self.high)}"

    def line(self, label: str) -> str:
        """Return the line of a terminal, with the note."""
        return f"{label:<10}  {self.text:<18}  {self.note}".rstrip()

    def limited(self, limit: float | None, name: str) -> Range:
        """Return the range within the budget `name`, if there is one."""
        if limit is None or (self.high is not None and self.high <= limit):
            return self
        low = None if self.low is None else min(self.low, limit)
        return Range(low=low, high=limit, note="; ".join(filter(None, (self.note, f"at most budget.{name}"))))


def product(count: Range, low: float, high: float | None, note: str, digits: int = 0) -> Range:
    """Return a count times the least and the most of each."""
    least = None if count.low is None else round(count.low * low, digits)
    most = None if count.high is None or high is None else round(count.high * high, digits)
    return Range(low=least, high=most, note=note)


def cost(
    settings: Settings,
    images: Range,
    calls: Range,
    tokens: Range,
    runs: Sequence[PastRun],
    call_tokens: CallTokens | None,
) -> Range:
    """Estimate the US dollars of a run; where one part is unknown, the note has the other."""
    text = cost_of_calls(settings.mllm, calls, tokens, runs, call_tokens)
    image = cost_of_images(settings.generator, images, runs)
    total = _sum(text, image)
    if total.low is None and total.high is None:
        return Range(note=f"images: {_with_note(image)}; MLLM calls: {_with_note(text)}")
    return total


def cost_of_images(choice: BackendChoice, images: Range, runs: Sequence[PastRun]) -> Range:
    """Estimate the US dollars of images, by the price that is set, else by those of past runs."""
    if choice.backend in HUB_GENERATORS or is_local(choice):
        return Range(low=0, high=0)
    price = choice.arguments.get("price_per_picture")
    if price is not None:
        return product(images, price, price, "by generator.price_per_picture", 6)
    paid = span([run.image_usd / len(run.image_seconds) for run in runs])
    if paid and paid[1]:
        return product(images, *paid, f"images {basis(runs)}", 6)
    if choice.backend == "openai_images" and listed_price(choice, "generator"):
        return Range(note="priced by their tokens, which no past run has reported")
    return Range(note=f"no price is known for the images of {choice.label}")


def tokens_of_calls(calls: Range, each: CallTokens) -> Range:
    """Estimate the tokens of some calls, read and written."""
    written = each.written[1]
    most = None if written is None else each.read[1] + written
    return product(calls, each.read[0] + each.written[0], most, each.note)


def cost_of_calls(
    choice: BackendChoice,
    calls: Range,
    tokens: Range,
    runs: Sequence[PastRun],
    call_tokens: CallTokens | None,
) -> Range:
    """Estimate the US dollars of MLLM calls; without past runs by the price table."""
    if calls.high == 0 or choice.backend == "pocket":
        return Range(low=0, high=0)
    paid = per_call(runs, "mllm_usd")
    if paid and paid[1]:
        return product(calls, *paid, basis(runs), 6)
    if choice.backend != "openai":
        return Range(note=f"the backend {choice.backend!r} reported no price")
    price = listed_price(choice, "mllm")
    if price is None and is_local(choice):
        return Range(low=0, high=0, note="a server on this machine, without a price")
    if price is None:
        model = str(choice.arguments.get("model", ""))
        return Range(note=f"no price is known for {model!r}; add it under [mllm.prices]")
    return _by_call(calls, call_tokens, price) if call_tokens else _by_tokens(tokens, price)


def _by_tokens(tokens: Range, price: Price) -> Range:
    """Price all tokens at the cheaper rate for the least, at the dearer one for the most."""
    if tokens.low is None or tokens.high is None:
        return Range(note=f"the tokens are unknown: {tokens.note}")
    low, high = sorted((price.read, price.written))
    note = "by the price table; read and written tokens are not distinguished"
    return Range(low=tokens.low * low / MILLION, high=tokens.high * high / MILLION, note=note)


def _by_call(calls: Range, tokens: CallTokens, price: Price) -> Range:
    low = (tokens.read[0] * price.read + tokens.written[0] * price.written) / MILLION
    most = tokens.written[1]
    high = None if most is None else (tokens.read[1] * price.read + most * price.written) / MILLION
    return product(calls, low, high, "an estimate, by the price table", 6)


def _sum(first: Range, second: Range) -> Range:
    lows, highs = (first.low, second.low), (first.high, second.high)
    low = None if None in lows else sum(filter(None, lows))
    high = None if None in highs else sum(filter(None, highs))
    return Range(low=low, high=high, note="; ".join(filter(None, (first.note, second.note))))


def _with_note(part: Range) -> str:
    return part.text + (f" ({part.note})" if part.note else "")


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"
