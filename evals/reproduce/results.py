"""Scores of what was generated, and the cells of the tables with the paper's figures beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan

from pleinair.evals.metrics import Interval
from pleinair.evals.reproduce.generate import Studio, Work
from pleinair.evals.reproduce.plan import NO_POOL, Arm, Line, Sheet
from pleinair.evals.reproduce.published import Figure
from pleinair.evals.reproduce.records import Entry, Records, key_of
from pleinair.evals.scores.items import Generated, Score, Scorer, score

LEFT_OUT = "not among --data-sets"  # why a cell is empty that the user did not ask for
OnScore = Callable[[str, int, int], None]
Measures = Mapping[str, tuple[tuple[str, ...], float]]  # by a column's measure: scores' titles, and a factor
Scores = dict[Arm, dict[str, Score]]  # by the measure's title, such as "CLIP-T"


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of a table beside the paper's; `why` says why there is none."""

    row: str
    data_set: str
    measure: str
    mean: float | None = None
    interval: Interval | None = None  # 95 %, clustered by group
    n: int = 0
    groups: int = 0  # classes, species or artists
    pool_size: int = 0  # images of the generic pool of a row of figure 16
    published: Figure | None = None
    why: str = ""
    note: str = ""

    @property
    def is_left_out(self) -> bool:
        """Return whether the user did not ask for its data set."""
        return self.why == LEFT_OUT

    @property
    def difference(self) -> float | None:
        """Return ours minus the paper's."""
        return None if self.mean is None or self.published is None else self.mean - self.published.value


def measure_all(
    studio: Studio, works: Sequence[Work], scorers: Sequence[Scorer], seed: int, on_progress: OnScore
) -> Scores:
    """Score the images of every arm; a score of the same images is read and not measured again."""
    cache = Records(studio.out / "scores.jsonl")
    scores: Scores = {}
    for work in works:
        items = _items(studio, work)
        scores[work.arm] = {
            scorer.title: _cached(cache, scorer, items, seed, on_progress) for scorer in scorers if items
        }
    return scores


def _items(studio: Studio, work: Work) -> list[Generated]:
    pairs = ((subject, studio.image(entry)) for subject, entry in studio.entries(work))
    return [
        Generated(image, subject.prompt, subject.truth, subject.group) for subject, image in pairs if image
    ]


def _cached(
    cache: Records, scorer: Scorer, items: Sequence[Generated], seed: int, on_progress: OnScore
) -> Score:
    key = _key(scorer, items, seed)
    entry: Entry | None = cache.get(key)
    if entry is None:
        (result,) = score(items, [scorer], seed=seed, on_progress=on_progress)
        if any(map(isnan, result.values)):  # a rating that was declined may succeed the next time
            return result
        entry = cache.add(key, score=result.plain())
    return Score.read(entry["score"])


def _key(scorer: Scorer, items: Sequence[Generated], seed: int) -> str:
    facts = [(item.image.name, item.prompt, [str(path) for path in item.truth], item.group) for item in items]
    return key_of(scorer.title, scorer.name, seed, facts)


def cells(
    sheet: Sheet,
    scores: Scores,
    works: Mapping[Arm, Work],
    measures: Measures,
    generator: str,
    not_run: Mapping[Arm, str],
) -> list[Cell]:
    """Return the cells of a table, row by row.

    Args:
        sheet: the table.
        scores: of every arm that was run.
        works: the arms that were run.
        measures: the scores of a column's measure, each of which has a cell, and a factor.
        generator: the paper's one whose figures are shown beside.
        not_run: why an arm was not run.
    """
    return [
        cell
        for line in sheet.lines
        for column in sheet.columns
        for cell in _cells(sheet, line, column, scores, works, measures, generator, not_run)
    ]


def _cells(
    sheet: Sheet,
    line: Line,
    column: str,
    scores: Scores,
    works: Mapping[Arm, Work],
    measures: Measures,
    generator: str,
    not_run: Mapping[Arm, str],
) -> Iterator[Cell]:
    arm, (data_set, _, measure) = line.arm(column), column.partition(" ")
    titles, factor = measures[measure]
    by_title = scores.get(arm, {})
    empty = Cell(
        row_name(line, arm),
        data_set,
        measure,
        published=sheet.figure(line, column, generator),
        pool_size=arm.pool.size,
    )
    results = [(title, by_title[title]) for title in titles if title in by_title]
    if not results:
        yield replace(empty, why=not_run.get(arm, f"no scorer of {' or '.join(titles)}"))
    groups = len({subject.group for subject in works[arm].subjects}) if results else 0
    for title, result in results:
        name = measure if title == titles[0] and len(results) == 1 else f"{measure} ({title})"
        if isnan(result.mean):
            yield replace(empty, measure=name, why="no image has a value")
            continue
        yield replace(
            empty,
            measure=name,
            mean=result.mean * factor,
            interval=_scaled(result.interval, factor),
            n=result.n,
            groups=groups,
            note=result.note,
        )


def row_name(line: Line, arm: Arm) -> str:
    """Return a row's title with the kind of its pool."""
    return line.title if arm.pool == NO_POOL else f"{line.title} ({arm.pool.kind} pool)"


def _scaled(interval: Interval | None, factor: float) -> Interval | None:
    return interval and (interval[0] * factor, interval[1] * factor)


@dataclass(frozen=True, slots=True)
class Failures:
    """Prompts of an arm that gave no image."""

    count: int
    of: int
    reason: str  # the most frequent one


def failures(studio: Studio, works: Sequence[Work]) -> dict[Arm, Failures]:
    """Return the arms in which prompts gave no image."""
    failed = {}
    for work in works:
        entries = [entry for _, entry in studio.entries(work)]
        reasons = Counter(f"{each['ending']}, {each['reason']}" for each in entries if not each["picture"])
        if reasons:
            failed[work.arm] = Failures(reasons.total(), len(entries), reasons.most_common(1)[0][0])
    return failed
