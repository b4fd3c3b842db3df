"""Estimate of a command before anything is spent, from the same plan that is then carried out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from pleinair.app.estimate.cost import Range, cost_of_calls, product
from pleinair.app.estimate.estimate import Estimate, estimate_of
from pleinair.app.estimate.imagerag import REPAIRED
from pleinair.app.estimate.tokens import tokens_of_call
from pleinair.app.paths import places
from pleinair.app.runs.prices import is_hosted, is_paid, require_prices
from pleinair.app.runs.request import DrawRequest
from pleinair.app.settings import Settings
from pleinair.evals.reproduce.generate import Studio, Work
from pleinair.evals.scores.gptscore import QUESTIONS
from pleinair.tools.types import BadInput, Usage

_DRAFTS = ("direct", "imagerag")  # graphs whose first image of a prompt is the same one


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is left to do; the first number of a range is for drafts that all match at once."""

    runs: int  # prompts without an entry
    done: int
    images: Range  # with the samples of a training
    samples: int  # images of a training among them
    calls: Range  # of the MLLM
    seconds: Range
    usd: Range
    is_paid: bool
    answers: int = 0  # of the MLLM for other measurements and for a score, whose calls are among `calls`

    def lines(self) -> Iterator[str]:
        """Yield the lines for a terminal."""
        yield f"{self.runs:,} prompts to generate for, {self.done:,} done before"
        yield self.images.line("images")
        if self.samples:
            yield f"{'':<12}{self.samples:,} of these are samples for a training, without those that exist"
        yield self.calls.line("MLLM calls")
        yield self.seconds.line("seconds")
        yield self.usd.line("US dollars")


def forecast(
    studio: Studio, works: Sequence[Work], settings: Settings, samples: int = 0, answers: int = 0
) -> Forecast:
    """Estimate what the arms lack; writes nothing and builds no engine.

    Args:
        studio: entries of earlier commands.
        works: the arms.
        settings: of all arms.
        samples: images that a training generates.
        answers: of the MLLM that no arm asks for; they are priced as ImageRAG's.
    """
    others = Range(low=answers, high=REPAIRED * answers)
    left = [(work, len(studio.left(work))) for work in works]
    parts = [(work, count, _estimate(work)) for work, count in left if count]
    return Forecast(
        runs=sum(count for _, count in left),
        done=sum(len(work.subjects) for work in works) - sum(count for _, count in left),
        images=_images(studio, parts, samples),
        samples=samples,
        calls=_sum([*(_times(part.calls, count) for _, count, part in parts), others]),
        seconds=_sum([_seconds(studio, parts), _seconds_of(studio, others)]),
        usd=_sum([*(_times(part.usd, count) for _, count, part in parts), _usd_of(settings, others)]),
        is_paid=any(_is_paid(work.settings, part) for work, _, part in parts)
        or bool(answers and is_hosted(settings.mllm)),
        answers=answers,
    )


def _usd_of(settings: Settings, calls: Range) -> Range:
    """Estimate the US dollars of MLLM calls outside of graphs."""
    return cost_of_calls(settings.mllm, calls, Range(), (), tokens_of_call("imagerag", "", settings.mllm))


def _seconds_of(studio: Studio, calls: Range) -> Range:
    """Estimate the seconds of MLLM calls outside of graphs by those of this folder."""
    if not calls.high:
        return Range(low=0, high=0)
    usages = [Usage(**entry["usage"]) for entry in studio.records if "seconds" not in entry]
    past = [usage.seconds / usage.mllm_calls for usage in usages if usage.mllm_calls]
    if not past:
        return Range(note="no answer of the MLLM was measured in this folder yet")
    return product(calls, median(past), median(past), "", 2)


def ratings(images: int, scorers: Sequence[str]) -> int:
    """Return the answers that rate so many images, if a language model is among the scorers."""
    return images * len(QUESTIONS) if "gptscore" in scorers else 0


def _estimate(work: Work) -> Estimate:
    request = DrawRequest(
        prompt=work.subjects[0].prompt, graph=work.line.variant.graph, seed=0, settings=work.settings, out="."
    )
    return estimate_of(request, places(work.settings.paths.home))


def _images(studio: Studio, parts: Sequence[tuple[Work, int, Estimate]], samples: int) -> Range:
    """Count images: the arms of a data set share the draft of a prompt, which is generated once."""
    drafts: set[tuple[str, str, int]] = set()
    others = Range(low=samples, high=samples)
    for work, count, part in parts:
        if not _shares_draft(work):
            others = _sum([others, _times(part.pictures, count)])
            continue
        drafts |= {(work.arm.data_set, subject.prompt, subject.seed) for subject in studio.left(work)}
        high = part.pictures.high
        others = _sum([others, Range(low=0, high=None if high is None else (high - 1) * count)])
    generated = {
        (entry.get("data_set"), entry["prompt"], entry["seed"])
        for entry in studio.records
        if entry.get("draft")
    }
    return _plus(others, len(drafts - generated))


def _seconds(studio: Studio, parts: Sequence[tuple[Work, int, Estimate]]) -> Range:
    """Estimate by the prompts of the same row that this folder has, else by past runs of the same graph."""
    ranges = []
    for work, count, part in parts:
        name = work.arm.variant
        past = [entry["seconds"] for entry in studio.records if entry.get("variant") == name]
        each = Range(low=median(past), high=median(past)) if past else part.seconds
        ranges.append(_times(each, count))
    return _sum(ranges)


def _shares_draft(work: Work) -> bool:
    return work.line.variant.graph in _DRAFTS and work.settings.imagerag.mode == "draft_first"


def _is_paid(settings: Settings, part: Estimate) -> bool:
    return is_paid(settings.generator) or (is_hosted(settings.mllm) and part.calls.high != 0)


def _times(part: Range, count: int) -> Range:
    low, high = (None if end is None else end * count for end in (part.low, part.high))
    return Range(low=low, high=high, note=part.note)


def _sum(parts: Sequence[Range]) -> Range:
    lows, highs = [part.low for part in parts], [part.high for part in parts]
    return Range(
        low=None if None in lows else round(sum(filter(None, lows)), 6),
        high=None if None in highs else round(sum(filter(None, highs)), 6),
        note="; ".join(dict.fromkeys(part.note for part in parts if part.note and part.high is None)),
    )


def _plus(part: Range, count: int) -> Range:
    return _sum([part, Range(low=count, high=count)])


def require_budget(forecast: Forecast, settings: Settings, max_usd: float | None) -> None:
    """Raise `BadInput` if the rest costs money and there is no limit, or none that could stop it."""
    if max_usd is not None:
        limited = settings.budget.model_copy(update={"usd": max_usd})
        require_prices(settings.model_copy(update={"budget": limited}))
    elif forecast.is_paid and (forecast.runs or forecast.answers):
        raise BadInput(
            f"Profile {settings.profile!r}: its generator or its MLLM costs money, and there is no limit.",
            f"Pass --max-usd; the estimate is {forecast.usd.text} US dollars.",
        )
