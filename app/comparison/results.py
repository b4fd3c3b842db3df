"""Results of a study: who wins how often, by question, with intervals.

Ties are reported, and left out of the shares. Votes on images of one prompt, of several judges or seeds,
depend on each other: the interval is Wilson's (1927) for the effective number of votes (Kish, 1965; Dean and
Pagano, 2015), the votes divided by how much more the share varies between prompts than it would between
independent votes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any, Literal

from pleinair.app.comparison.study import Side, Source, Study, source_at
from pleinair.app.comparison.votes import QUESTIONS, Entry, Question
from pleinair.app.texts import counted
from pleinair.tools.types import Value

Winner = Literal["a", "b", "tie"]
Interval = tuple[float, float]
Z = NormalDist().inv_cdf(0.975)


class Tally(Value):
    """Votes on one question."""

    question: Question
    a: int  # votes for the first source
    b: int
    ties: int
    prompts: int  # that have a vote which is no tie
    share: float | None  # of the first source among the votes that are no ties; None for none
    interval: Interval | None  # 95 % of it

    @property
    def line(self) -> str:
        """Return the tally in one line."""
        if self.share is None or self.interval is None:
            return f"{self.question}: no vote decides; {counted(self.ties, 'tie')}"
        low, high = self.interval
        return (
            f"{self.question}: A wins {self.a}, B wins {self.b}, ties {self.ties}; A in {self.share:.1%} of "
            f"the decided [{low:.1%}, {high:.1%}], {counted(self.prompts, 'prompt')}"
        )


class Results(Value):
    """Results of a study."""

    a: str
    b: str
    pairs: int
    unpaired: tuple[int, int]  # images of A and of B without a partner
    identical: int  # pairs of equal pixels, which nobody was asked about
    votes: int
    judges: tuple[str, ...]
    tallies: tuple[Tally, ...]

    def lines(self) -> Iterator[str]:
        """Yield the lines for a terminal."""
        yield f"A: {self.a}"
        yield f"B: {self.b}"
        votes, judges = counted(self.votes, "vote"), counted(len(self.judges), "judge")
        yield f"{votes} on {counted(self.pairs, 'pair')} by {judges}"
        yield from (tally.line for tally in self.tallies)


def results_of(study: Study, votes: Sequence[Entry]) -> Results:
    """Return the results of the votes that count."""
    return Results(
        a=study.a,
        b=study.b,
        pairs=len(study.pairs),
        unpaired=study.unpaired,
        identical=study.identical,
        votes=len(votes),
        judges=tuple(sorted({vote.judge for vote in votes})),
        tallies=tuple(_tally_of(study, votes, question) for question in QUESTIONS),
    )


def _tally_of(study: Study, votes: Sequence[Entry], question: Question) -> Tally:
    """Return the votes on one question."""
    winners = [(study.by_key[vote.pair].prompt, winner_of(study, vote, question)) for vote in votes]
    decided = [(prompt, float(winner == "a")) for prompt, winner in winners if winner in ("a", "b")]
    values, prompts = [value for _, value in decided], [prompt for prompt, _ in decided]
    return Tally(
        question=question,
        a=int(sum(values)),
        b=len(values) - int(sum(values)),
        ties=sum(winner == "tie" for _, winner in winners),
        prompts=len(set(prompts)),
        share=sum(values) / len(values) if values else None,
        interval=interval_of(values, prompts),
    )


def winner_of(study: Study, vote: Entry, question: Question) -> Winner | None:
    """Return the source that a vote is for."""
    answer = vote.answer(question)
    if answer is None or answer == "tie":
        return answer
    side: Side = answer
    source: Source = source_at(study.by_key[vote.pair], side)
    return source


def interval_of(values: Sequence[float], groups: Sequence[str]) -> Interval | None:
    """Return the 95 % interval of the share of ones among 0 and 1; values of one group depend on each other.

    With a value a group it is Wilson's. Where all values are equal, each group counts once.
    """
    if not values:
        return None
    return wilson(sum(values) / len(values), _effective(values, groups))


def _effective(values: Sequence[float], groups: Sequence[str]) -> float:
    """Return the number of independent values that would say as much."""
    n, share = len(values), sum(values) / len(values)
    errors: dict[str, float] = {}
    for value, group in zip(values, groups, strict=True):
        errors[group] = errors.get(group, 0.0) + value - share
    count = len(errors)
    if share in (0, 1) or count < 2:
        return float(count)
    between = count / (count - 1) * sum(error**2 for error in errors.values()) / n**2
    independent = share * (1 - share) / (n - 1)
    return n / max(between / independent, 1.0)


def wilson(share: float, n: float) -> Interval:
    """Return Wilson's 95 % score interval of a share of `n` values."""
    center = share + Z**2 / (2 * n)
    half = Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = ((center + sign * half) / (1 + Z**2 / n) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def resolved(study: Study, votes: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """Yield the votes with the sources that they are for, in the order in which they were given."""
    for vote in sorted(votes, key=lambda vote: vote.at):
        pair = study.by_key[vote.pair]
        yield {
            "judge": vote.judge,
            "at": vote.at,
            "pair": pair.key,
            "prompt": pair.prompt,
            "a": pair.a.file,
            "b": pair.b.file,
            "seed_a": pair.a.seed,
            "seed_b": pair.b.seed,
            "left": pair.left,
            **{question: winner_of(study, vote, question) for question in QUESTIONS},
        }


def votes_file(study: Study, votes: Sequence[Entry], suffix: str) -> bytes:
    """Return the resolved votes as a file, ".csv" or ".jsonl"."""
    rows = list(resolved(study, votes))
    if suffix == ".jsonl":
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
    text = io.StringIO()
    names = list(rows[0]) if rows else ["judge"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """Return a value that no spreadsheet takes for a formula."""
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )
