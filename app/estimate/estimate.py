"""What a drawing will take, told before anything is spent: no engine is built and nothing is written.

Low is a draft that is accepted at once, high the whole budget. What a question or a picture takes is what it
took in past runs of the same graph, profile and models: the least and the most of their averages. Before the
first one tokens are estimated from what would be sent. Where nothing is known it says so. Not covered: tries
repeated after a fault, and the making of an index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pleinair.app.estimate.cost import money
from pleinair.app.estimate.history import Span, Spent, by, counted, each, past, span
from pleinair.app.estimate.memory import memory
from pleinair.app.estimate.ranges import Range, product
from pleinair.app.estimate.tokens import Tokens, estimated
from pleinair.app.paths import Paths
from pleinair.app.runs.request import DrawRequest
from pleinair.app.settings import Settings
from pleinair.tools.types import Budget, Value

AGAIN = 2  # calls that one question may take, where the answer does not fit or is in doubt
NO_RUN = "no finished run of this graph, profile and models yet"


class Estimate(Value):
    """Hold a whole estimate."""

    graph: str
    profile: str
    generator: str
    mllm: str
    past_runs: int
    limits: Budget
    pictures: Range
    calls: Range  # of the language model
    tokens: Range
    seconds: Range  # of work
    usd: Range
    memory: Range = Range()  # GiB on the generator's device

    def lines(self) -> Iterator[str]:
        """Tell it for a terminal."""
        yield f"{self.graph}, profile {self.profile}: {self.generator}, {self.mllm}. Nothing is drawn."
        for label, one in (
            ("pictures", self.pictures),
            ("questions", self.calls),
            ("tokens", self.tokens),
            ("seconds", self.seconds),
            ("US dollars", self.usd),
            ("memory GiB", self.memory),
        ):
            yield f"{label:<10}  {one.text:<18}  {one.note}".rstrip()
        limits = self.limits.model_dump(exclude_none=True)
        yield f"limits      {', '.join(f'{key} {value}' for key, value in limits.items())}"
        yield "The first number is for a draft that is accepted at once, the second for the whole budget."


def quote(order: DrawRequest, places: Paths) -> Estimate:
    """Estimate what an order takes."""
    settings, runs = order.settings, past(order, places)
    budget = settings.budget
    pictures = capped(_drawings(order.graph, settings), budget.images, "images")
    low, high, why = memory(settings.generator)
    asked = capped(_questions(order.graph, settings, pictures, runs), budget.mllm_calls, "mllm_calls")
    one = None if runs else estimated(order.graph, order.prompt, settings.mllm)
    each_took = _before_any(asked, one) if one else _times(asked, each(runs, "tokens"), runs)
    tokens = capped(each_took, budget.tokens, "tokens")
    return Estimate(
        graph=order.graph,
        profile=settings.profile,
        generator=settings.generator.label,
        mllm=settings.mllm.label,
        past_runs=len(runs),
        limits=budget,
        pictures=pictures,
        calls=asked,
        tokens=tokens,
        seconds=capped(_duration(pictures, asked, runs), budget.seconds, "seconds"),
        memory=Range(low=low, high=high, note=why),
        usd=capped(money(settings, pictures, asked, tokens, runs, one), budget.usd, "usd"),
    )


def _drawings(graph: str, settings: Settings) -> Range:
    """Count the pictures, as far as the graph is one of ours."""
    most, rounds = settings.budget.attempts, settings.imagerag.rounds
    if graph == "direct" or graph == "crossmodal":
        return Range(low=1, high=1)
    if graph == "realrag":
        count = min(1 + (settings.realrag.method == "self_contrast"), most)
        return Range(low=count, high=count)
    if graph == "imagerag":
        return Range(low=1, high=min(rounds + (settings.imagerag.mode == "draft_first"), most))
    if graph == "pleinair":
        sketched = bool(settings.generator.arguments.get("draft_steps"))
        return Range(low=min(1 + sketched, most), high=most)
    return Range(low=1, high=most)


def _questions(graph: str, settings: Settings, pictures: Range, runs: Sequence[Spent]) -> Range:
    """Count the calls of the language model; where the graph sets no bound, by what past runs took."""
    assert pictures.low is not None and pictures.high is not None
    if graph == "direct" or graph == "realrag" or (graph == "crossmodal" and not settings.crossmodal.rag):
        return Range(low=0, high=0, note="this graph asks none")
    if graph == "pleinair":  # the concepts once, and a look at each picture
        return Range(low=1 + pictures.low, high=AGAIN * (1 + pictures.high))
    if graph == "crossmodal":
        return Range(low=1, high=AGAIN + settings.crossmodal.captions)
    least = 1 if graph == "imagerag" and settings.imagerag.mode == "draft_first" else None
    taken = span([one.questions for one in runs])
    if taken is None:
        return Range(low=least, note=f"this graph sets no bound, and there is {NO_RUN}")
    low = taken[0] if least is None else least
    return Range(low=low, high=taken[1], note=f"what {counted(runs)} took; this graph sets no bound")


def _times(asked: Range, one: Span | None, runs: Sequence[Spent]) -> Range:
    """Multiply the calls by what each took; what past runs did not report is not known."""
    if asked.high == 0:
        return Range(low=0, high=0)
    if one is None or asked.low is None or asked.high is None:
        return Range(note=_unknown(runs, asked))
    if not one[1]:
        return Range(note="the language model of past runs reported none")
    return Range(low=round(asked.low * one[0]), high=round(asked.high * one[1]), note=by(runs))


def _before_any(asked: Range, one: Tokens) -> Range:
    """Estimate the tokens where no run has told them."""
    if asked.high == 0:
        return Range(low=0, high=0)
    capped = one.written[1]
    most = None if capped is None else one.read[1] + capped
    return product(asked, one.read[0] + one.written[0], most, one.note)


def _duration(pictures: Range, asked: Range, runs: Sequence[Spent]) -> Range:
    """Estimate the seconds of work: of the pictures, and of all else as it grew with the calls."""
    drawn = span([seconds for one in runs for seconds in one.pictures])
    rest = span([one.rest / max(one.questions, 1) for one in runs])
    if drawn is None or rest is None or asked.low is None or asked.high is None:
        return Range(note=_unknown(runs, asked))
    assert pictures.low is not None and pictures.high is not None
    low = pictures.low * drawn[0] + max(asked.low, 1) * rest[0]
    high = pictures.high * drawn[1] + max(asked.high, 1) * rest[1]
    return Range(low=round(low, 2), high=round(high, 2), note=by(runs))


def capped(one: Range, most: float | None, name: str) -> Range:
    """Hold a range under a limit, if there is one."""
    if most is None:
        return one
    if one.high is None or one.high > most:
        low = one.low if one.low is None else min(one.low, most)
        why = "; ".join(filter(None, (one.note, f"at most budget.{name}")))
        return Range(low=low, high=most, note=why)
    return one


def _unknown(runs: Sequence[Spent], asked: Range) -> str:
    """Say why something is not known."""
    return "the number of questions is not known" if runs and asked.high is None else NO_RUN
