"""What a run may cost: its questions by their tokens, its pictures by their price."""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.app.estimate.history import Spent, by, each, span
from pleinair.app.estimate.ranges import Range, both, product
from pleinair.app.estimate.tokens import Tokens
from pleinair.app.prices import HERE, is_local, listed
from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.http.prices import MILLION, Price


def money(
    settings: Settings,
    pictures: Range,
    asked: Range,
    tokens: Range,
    runs: Sequence[Spent],
    one: Tokens | None,
) -> Range:
    """Estimate the US dollars; where one part is not known, the other is told in the note."""
    words = _for_words(settings.mllm, asked, tokens, runs, one)
    seen = _for_pictures(settings.generator, pictures, runs)
    total = both(words, seen)
    if total.low is None and total.high is None:
        return Range(note=f"the pictures: {_told(seen)}; the questions: {_told(words)}")
    return total


def _told(part: Range) -> str:
    """Put a part of a sum into words."""
    return part.text + (f" ({part.note})" if part.note else "")


def _for_pictures(choice: BackendChoice, pictures: Range, runs: Sequence[Spent]) -> Range:
    """Estimate what the pictures cost."""
    if choice.backend in HERE or is_local(choice):
        return Range(low=0, high=0)
    each_costs = choice.arguments.get("price_per_picture")
    if each_costs is not None:
        return product(pictures, each_costs, each_costs, "by generator.price_per_picture", 6)
    paid = span([one.painted / len(one.pictures) for one in runs])
    if paid and paid[1]:
        return product(pictures, *paid, f"pictures {by(runs)}", 6)
    if choice.backend == "openai_images" and listed(choice, "generator"):
        return Range(note="priced by their tokens, which no past run has told")
    return Range(note=f"no price is known for the pictures of {choice.label}")


def _for_words(
    choice: BackendChoice, asked: Range, tokens: Range, runs: Sequence[Spent], one: Tokens | None
) -> Range:
    """Estimate what the language model costs."""
    if asked.high == 0 or choice.backend == "pocket":
        return Range(low=0, high=0)
    paid = each(runs, "usd")
    if paid and paid[1]:
        return product(asked, *paid, by(runs), 6)
    if choice.backend != "openai":
        return Range(note=f"the engine {choice.backend!r} has told no price")
    price = listed(choice, "mllm")
    if price is None and is_local(choice):
        return Range(low=0, high=0, note="a server on this machine, without a price")
    if price is None:
        model = str(choice.arguments.get("model", ""))
        return Range(note=f"no price is known for {model!r}; write it under [mllm.prices]")
    return _by_estimate(asked, one, price) if one else _by_table(tokens, price)


def _by_table(tokens: Range, price: Price) -> Range:
    """Price tokens by the table: at best all are of the cheaper sort, at worst all of the dearer one."""
    if tokens.low is None or tokens.high is None:
        return Range(note=f"the tokens are not known: {tokens.note}")
    low, high = sorted((price.read, price.written))
    note = "by the price table; read and written tokens are not told apart"
    return Range(low=tokens.low * low / MILLION, high=tokens.high * high / MILLION, note=note)


def _by_estimate(asked: Range, one: Tokens, price: Price) -> Range:
    """Price what a question is estimated to read and to write."""
    low = (one.read[0] * price.read + one.written[0] * price.written) / MILLION
    capped = one.written[1]
    high = None if capped is None else (one.read[1] * price.read + capped * price.written) / MILLION
    return product(asked, low, high, "an estimate, by the price table", 6)
