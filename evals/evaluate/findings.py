"""What an evaluation found, as fields: the verdict with its interval, the columns, gaps, leaks and harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import comb, floor, isnan, log2
from statistics import fmean, median

from pleinair.evals.evaluate.columns import LOOP, NONE, RETRIEVED, TRUE, LibraryStudio
from pleinair.evals.metrics import Interval, interval
from pleinair.evals.reproduce.generate import Work
from pleinair.evals.scores.items import Score, Scorer

WORTH_OF_SHARE, WORTH_OF_COSINE = 0.1, 0.02  # of the range; the least gain that matters
ENOUGH = 10  # concepts, under which "does not help" is not concluded
LEAST = 6  # concepts, under which nothing is: chance alone points 5 one way in 1 of 16 cases
_BEYOND_CHANCE = 0.05  # probability of naming any concept as harmed by chance alone


class Verdict(StrEnum):
    """Whether retrieval helps, by the 95 % interval of the retrieved image's gain over no reference."""

    HELPS = "helps"  # the interval lies above 0
    HARMS = "harms"  # the interval lies below 0
    DOES_NOT_HELP = "does not help"  # it holds 0, and its upper end is no gain that matters
    UNDECIDED = "undecided"  # it holds 0 and gains that matter, or there are too few concepts


@dataclass(frozen=True, slots=True)
class Change:
    """Mean difference of two columns over pairs of equal prompt and seed."""

    mean: float
    interval: Interval | None  # 95 %, clustered by concept
    n: int  # pairs
    concepts: int


@dataclass(frozen=True, slots=True)
class Column:
    """Figures of one way of generating; seconds are the median of a prompt, the rest means."""

    name: str
    title: str
    scores: Mapping[str, tuple[float, Interval | None]]  # by the scorer's title
    gain: Mapping[str, Change]  # over no reference; empty for that column itself
    images: int  # prompts with an image
    failures: int
    seconds: float
    calls: float
    attempts: float
    usd: float


@dataclass(frozen=True, slots=True)
class Harm:
    """Concept whose score is lower with the retrieved image than without."""

    concept: str
    mean: float  # difference
    lower: int  # prompts whose score is lower
    prompts: int
    is_certain: bool  # by a sign test over its prompts, at 5 % for all concepts together (Bonferroni)


@dataclass(frozen=True, slots=True)
class Gap:
    """Concept that the library did not serve, in all or some of its prompts."""

    concept: str
    nothing: int  # prompts without a hit above the threshold
    others: Mapping[str, int]  # prompts whose hit shows other concepts alone, by those
    prompts: int


@dataclass(frozen=True, slots=True)
class LeakFinding:
    """Image that is nearly a copy of a reference."""

    column: str
    concept: str
    prompt: str
    reference: str
    copied: float  # 0 to 1


@dataclass(frozen=True, slots=True)
class Findings:
    """All that an evaluation found."""

    verdict: Verdict
    measure: str  # title of the scorer that decides
    scorer: str  # its name
    is_independent: bool  # of the loop's models
    unit: float  # what a score is multiplied by for print: 100 for a share
    gain: Change
    columns: tuple[Column, ...]
    of_concepts: Mapping[str, float]  # gain of each concept
    harm: tuple[Harm, ...]
    gaps: tuple[Gap, ...]
    leaks: tuple[LeakFinding, ...]
    seeds: int


def verdict_of(gain: Change, bounds: Interval) -> Verdict:
    """Return the verdict of a gain of a score with such bounds."""
    if gain.interval is None or gain.concepts < LEAST:
        return Verdict.UNDECIDED
    low, high = gain.interval
    if low > 0:
        return Verdict.HELPS
    if high < 0:
        return Verdict.HARMS
    if high <= _worth_of(bounds) and gain.concepts >= ENOUGH:
        return Verdict.DOES_NOT_HELP
    return Verdict.UNDECIDED


def _worth_of(bounds: Interval) -> float:
    """Return the least gain that matters: 10 points of a share, 0.02 of a cosine."""
    return WORTH_OF_COSINE if bounds[0] < 0 else WORTH_OF_SHARE * (bounds[1] - bounds[0])


Values = dict[str, dict[int, float]]  # by column: the value of each prompt, by its number


def _values_of(
    studio: LibraryStudio, works: Sequence[Work], scores: Mapping[str, Mapping[str, Score]], title: str
) -> Values:
    """Return the values of a scorer by column and prompt; a prompt without an image or a value has none."""
    values: Values = {}
    for work in works:
        name, score = work.arm.variant, scores[work.arm.variant].get(title)
        numbers = [number for number, _, _ in _images_of(studio, work)]
        pairs = zip(numbers, score.values, strict=True) if score else ()
        values[name] = {number: value for number, value in pairs if not isnan(value)}
    return values


def _images_of(studio: LibraryStudio, work: Work) -> list[tuple[int, str, object]]:
    """Return the prompts of a column that have an image: number, concept, entry."""
    return [
        (number, subject.group, entry)
        for number, subject in enumerate(work.subjects)
        if (entry := studio.records.get(work.key(subject))) and entry["picture"]
    ]


def change_of(
    after: Mapping[int, float],
    before: Mapping[int, float],
    concepts: Sequence[str],
    bounds: Interval,
    seed: int,
) -> Change:
    """Return the mean of paired differences, with an interval by a bootstrap over concepts."""
    numbers = sorted(after.keys() & before.keys())
    differences = [after[number] - before[number] for number in numbers]
    groups = [concepts[number] for number in numbers]
    span = bounds[1] - bounds[0]
    mean = sum(differences) / len(differences) if differences else 0.0
    ends = interval(differences, -span, span, seed, groups)
    return Change(mean, ends, len(differences), len(set(groups)))


def find(
    studio: LibraryStudio,
    works: Sequence[Work],
    scorers: Sequence[Scorer],
    scores: Mapping[str, Mapping[str, Score]],
    *,
    seed: int,
    copied: float,
    independent: bool,
) -> Findings:
    """Return what was found; the first scorer decides.

    Args:
        studio: whose entries are complete.
        works: of all columns.
        scorers: those of `scores`.
        scores: by column and the scorer's title.
        seed: of the bootstraps.
        copied: similarity from which an image is a copy of its reference.
        independent: whether the first scorer shares no model with the loop.
    """
    concepts = [subject.group for subject in works[0].subjects]
    by_title = {scorer.title: scorer for scorer in scorers}
    values = {title: _values_of(studio, works, scores, title) for title in by_title}
    first = next(iter(by_title))
    bounds = by_title[first].bounds
    gains = {
        (name, title): change_of(of_column[name], of_column[NONE], concepts, by_title[title].bounds, seed)
        for title, of_column in values.items()
        for name in of_column
    }
    gain = gains[RETRIEVED, first]
    differences = _by_concept(values[first], concepts)
    return Findings(
        verdict=verdict_of(gain, bounds),
        measure=first,
        scorer=by_title[first].name,
        is_independent=independent,
        unit=1.0 if bounds[0] < 0 else 100.0 / bounds[1],
        gain=gain,
        columns=tuple(_column(studio, work, scores, gains, list(by_title)) for work in works),
        of_concepts={concept: fmean(each) for concept, each in differences.items()},
        harm=harm_of(differences),
        gaps=_gaps(studio, next(work for work in works if work.arm.variant == RETRIEVED)),
        leaks=tuple(_leaks(studio, works, copied)),
        seeds=len(concepts) // max(len(set(concepts)), 1),
    )


def _column(
    studio: LibraryStudio,
    work: Work,
    scores: Mapping[str, Mapping[str, Score]],
    gains: Mapping[tuple[str, str], Change],
    titles: Sequence[str],
) -> Column:
    name, entries = work.arm.variant, [entry for _, entry in studio.entries(work)]
    count = max(len(entries), 1)
    usage = {
        key: sum(entry["usage"][key] for entry in entries) / count for key in ("mllm_calls", "images", "usd")
    }
    measured = {title: scores[name][title] for title in titles if title in scores[name]}
    return Column(
        name=name,
        title=work.line.title,
        scores={title: (score.mean, score.interval) for title, score in measured.items()},
        gain={} if name == NONE else {title: gains[name, title] for title in titles},
        images=sum(bool(entry["picture"]) for entry in entries),
        failures=sum(not entry["picture"] for entry in entries),
        seconds=median(entry["seconds"] for entry in entries) if entries else 0.0,
        calls=usage["mllm_calls"],
        attempts=usage["images"],
        usd=usage["usd"],
    )


def _by_concept(values: Values, concepts: Sequence[str]) -> dict[str, list[float]]:
    """Return the differences that the retrieved image makes to the prompts of each concept."""
    after, before = values[RETRIEVED], values[NONE]
    differences: dict[str, list[float]] = {}
    for number in sorted(after.keys() & before.keys()):
        differences.setdefault(concepts[number], []).append(after[number] - before[number])
    return differences


def least_seeds(concepts: int) -> int:
    """Return the prompts of a concept from which harm to it can be told from chance."""
    return floor(log2(concepts / _BEYOND_CHANCE)) + 1


def harm_of(differences: Mapping[str, Sequence[float]]) -> tuple[Harm, ...]:
    """Return the concepts whose mean difference is negative: those beyond chance first, then the worst."""
    harm = []
    for concept, each in differences.items():
        lower, higher = sum(value < 0 for value in each), sum(value > 0 for value in each)
        if fmean(each) < 0:
            chance = sum(comb(lower + higher, count) for count in range(higher + 1)) / 2 ** (lower + higher)
            is_certain = chance * len(differences) < _BEYOND_CHANCE
            harm.append(Harm(concept, fmean(each), lower, len(each), is_certain))
    return tuple(sorted(harm, key=lambda each: (not each.is_certain, each.mean)))


def _gaps(studio: LibraryStudio, work: Work) -> tuple[Gap, ...]:
    of_image, gaps = studio.split.concepts.of_image, []
    entries: dict[str, list[list[dict[str, str]]]] = {}
    for subject, entry in studio.entries(work):
        entries.setdefault(subject.group, []).append(entry["references"])
    for concept, each in entries.items():
        nothing, others = sum(not references for references in each), dict[str, int]()
        for references in each:
            shown = [of_image.get(reference["id"], frozenset()) for reference in references]
            if shown and all(names and concept not in names for names in shown):
                name = ", ".join(sorted(shown[0]))
                others[name] = others.get(name, 0) + 1
        if nothing or others:
            gaps.append(Gap(concept, nothing, others, len(each)))
    return tuple(gaps)


def _leaks(studio: LibraryStudio, works: Sequence[Work], least: float) -> list[LeakFinding]:
    from pleinair.tools.images import leak
    from pleinair.tools.types import Picture

    found = []
    for work in (work for work in works if work.arm.variant in (RETRIEVED, TRUE, LOOP)):
        for subject, entry in studio.entries(work):
            for reference in entry["references"] if entry["picture"] else ():
                images = [studio.store.open(Picture(**part["picture"])) for part in (entry, reference)]
                copied = leak.copied(*map(leak.shrunk, images))
                if copied >= least:
                    name, concept = work.arm.variant, subject.group
                    found.append(LeakFinding(name, concept, subject.prompt, reference["id"], copied))
    return found
