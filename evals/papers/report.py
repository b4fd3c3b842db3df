"""Sum the papers' measurements up: figures with intervals, and whether each claim is seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pleinair.evals import metrics
from pleinair.evals.papers.claims import CLAIMS, NOTES, TITLES, Claim
from pleinair.evals.report import Figures, decimal, percent, row, table_head

Record = dict[str, Any]  # one line of the file: setup, section, column, seed, tier, case, measures, seconds
SHARES = ("right", "R@1", "coverage")  # measures in 0..1 that have intervals
CRAMPED = "cannot tell: both are at the ceiling or the floor"
MARGIN = 0.1  # two shares are about equal where the interval of their difference is within it


def summarise(section: str, records: Sequence[Record]) -> Figures:
    """Compute every figure of a section; shares are in 0..1, intervals cover 95 %."""
    measures = dict.fromkeys(name for one in records for name in one["measures"])
    return {
        "measures": {name: dict(tiers(records, name)) for name in measures},
        "claims": [judged(claim, records) for claim in CLAIMS[section] if _known(claim, records)],
        "records": len(records),
        "seconds": round(sum(one["seconds"] for one in records), 1),
    }


def tiers(records: Sequence[Record], measure: str) -> Iterator[tuple[str, Figures]]:
    """Give a measure's figures by tier and column, all tiers together last."""
    mine = [one for one in records if measure in one["measures"]]
    each = list(dict.fromkeys(one["tier"] for one in mine))
    for tier in [*each, "all"] if len(each) > 1 else ["all"]:
        found = _at(mine, tier)
        columns = dict.fromkeys(one["column"] for one in found)
        yield (
            tier,
            {name: _score([one for one in found if one["column"] == name], measure) for name in columns},
        )


def _score(records: Sequence[Record], measure: str) -> Figures:
    """Give the mean of a measure with its interval, and each seed's own."""
    values = [one["measures"][measure] for one in records]
    ci = metrics.interval(values, 0, 1) if measure in SHARES else None
    seeds = sorted({one["seed"] for one in records})
    own = [[one["measures"][measure] for one in records if one["seed"] == seed] for seed in seeds]
    return {
        "mean": metrics.mean(values),
        "ci": ci and list(ci),
        "n": len(values),
        "by_seed": [metrics.mean(found) for found in own],
    }


def _at(records: Sequence[Record], tier: str) -> list[Record]:
    """Keep the records of a tier; "all" is every one."""
    return [one for one in records if tier in ("all", one["tier"])]


def _known(claim: Claim, records: Sequence[Record]) -> bool:
    """Tell whether both sides of a claim were measured."""
    columns = {one["column"] for one in _at(records, claim.tier) if claim.measure in one["measures"]}
    return {claim.better, claim.worse} <= columns


def judged(claim: Claim, records: Sequence[Record]) -> Figures:
    """Give the gain of one column over another on the same cases, and what it says of the claim."""
    mine = [one for one in _at(records, claim.tier) if claim.measure in one["measures"]]
    ours, theirs = (
        {(one["seed"], one["case"]): one["measures"][claim.measure] for one in mine if one["column"] == name}
        for name in (claim.better, claim.worse)
    )
    gained = [ours[case] - theirs[case] for case in ours if case in theirs]
    ci = metrics.interval(gained, -1, 1)
    moved = claim.kind == "about" and any(gained)  # then the columns could differ, and did
    return {
        "claim": claim.text,
        "measure": claim.measure,
        "tier": claim.tier,
        "gain": metrics.mean(gained),
        "ci": ci and list(ci),
        "n": len(gained),
        "verdict": verdict(claim.kind, ci, not moved and _at_an_end(_both_shares(claim, mine))),
    }


def _both_shares(claim: Claim, records: Sequence[Record]) -> Iterator[tuple[float, float]]:
    """Give the two columns' means in each tier."""
    for tier in dict.fromkeys(one["tier"] for one in records):
        found = _at(records, tier)
        better, worse = (
            [one["measures"][claim.measure] for one in found if one["column"] == name]
            for name in (claim.better, claim.worse)
        )
        if better and worse:
            yield sum(better) / len(better), sum(worse) / len(worse)


def _at_an_end(pairs: Iterable[tuple[float, float]]) -> bool:
    """Tell whether in every tier both shares are so near one end that they count as equal."""
    return all(min(pair) >= 1 - MARGIN or max(pair) <= MARGIN for pair in pairs)


def verdict(kind: str, ci: Sequence[float] | None, cramped: bool = False) -> str:
    """Say what the interval of a gain shows: a tie is called neither.

    Where two columns are `cramped` at an end, that they are alike shows nothing: there was no room for a
    gain, or no case in which they differed.
    """
    if ci is None:
        return "not measured"
    low, high = ci
    if cramped and low <= 0 <= high:
        return CRAMPED
    if kind == "about":
        if -MARGIN <= low and high <= MARGIN:
            return "reproduced"
        return f"not reproduced: {'the interval is too wide' if low <= 0 <= high else 'they differ'}"
    if low > 0:
        return "reproduced"
    return "not reproduced: reversed" if high < 0 else "not reproduced: no difference shown"


def from_realrag(found: Figures) -> Figures:
    """Put RealRAG's own figures into the form of the others."""
    drawn = found["accuracy"]["all"]
    shares = {"right": drawn} | {
        f"R@1, library {where}": every["all"] for where, every in found["recall"].items()
    }
    recalls = {
        f"R@1, library {where}": {"all": {name: scored(one) for name, one in every["all"].items()}}
        for where, every in found["recall"].items()
    }
    likeness = {
        key: {"all": {name: plain(one[key]) for name, one in found["similarity"].items()}}
        for key in found["similarity"]["base"]
    }
    distance = {name: plain(100 * value) for name, value in found["distance"].items()}
    gained = {f"R@1, library {where}": every["all"] for where, every in found["recall_gains"].items()}
    return {
        "measures": {"right": {"all": {name: scored(one) for name, one in drawn.items()}}, **recalls}
        | likeness
        | ({"Fréchet distance × 100": {"all": distance}} if distance else {}),
        "claims": [
            {
                "claim": step.replace(" - ", " ≥ "),
                "measure": measure,
                "tier": "all",
                **one,
                "verdict": verdict("better", one["ci"], _at_an_end([_sides(step, shares[measure])])),
            }
            for measure, steps in ({"right": found["accuracy_gains"]["all"]} | gained).items()
            for step, one in steps.items()
        ],
        "command": found["command"],
    }


def _sides(step: str, scores: Figures) -> tuple[float, float]:
    """Give the shares of the two columns of a step such as "normal - zero"."""
    better, worse = step.split(" - ")
    return scores[better]["share"], scores[worse]["share"]


def scored(one: Figures) -> Figures:
    """Name a share as the other sections do."""
    return {"mean": one["share"], "ci": one["ci"], "n": one["n"]}


def plain(value: float) -> Figures:
    """Name a mean as the other sections do; it has no interval."""
    return {"mean": value, "ci": None}


def write_markdown(figures: Figures) -> str:
    """Write the page: every figure with its n and interval, and every claim with what became of it."""
    about = figures["about"]
    lines = [
        "# What the three papers claim, in the miniature world\n",
        f"```sh\n{about['command']}\n```\n",
        f"{about['seeds']} seeds, each with prompts, noise and libraries of its own. A picture is right when",
        "an independent classifier finds every species of the prompt in it. Brackets are 95 % bootstrap",
        "intervals over prompts and seeds; a species that comes again is taken as independent. Gains are on",
        "the same cases. A claim is reproduced when the gain's interval is above 0, and for ≈ where it is",
        f"within ± {100 * MARGIN:.0f} points. Where in every tier both columns are within"
        f" {100 * MARGIN:.0f} points of the same end,",
        "a gain that is not shown cannot be told, for want of room; nor ≈, unless some case differs.\n",
    ]
    for name in [name for name in TITLES if name in figures]:
        lines += [f"## {TITLES[name]}\n", NOTES[name], "", *section(figures[name])]
    return "\n".join(lines)


def section(found: Figures) -> Iterator[str]:
    """Write a section's tables: shares by tier, plain means of all tiers, claims."""
    plain = {
        measure: each["all"]
        for measure, each in found["measures"].items()
        if not any(one["ci"] for one in each["all"].values())
    }
    for measure, each in found["measures"].items():
        if measure not in plain:
            yield from _table(measure, each)
    for measure, each in plain.items():
        means = (f"{name} {decimal(one['mean'])}" for name, one in each.items())
        yield f"{measure}, on average: {', '.join(means)}.\n"
    yield from table_head("claim", "measure", "tier", "gain", "n", "")
    for one in found["claims"]:
        gain = percent(one["gain"], one["ci"])
        yield row(one["claim"], one["measure"], one["tier"], gain, one["n"], one["verdict"])
    yield ""


def _table(measure: str, tiers: Figures) -> Iterator[str]:
    """Write a table of tiers by columns."""
    columns = list(dict.fromkeys(name for scores in tiers.values() for name in scores))
    yield from table_head(measure, *columns, "n")
    for tier, scores in tiers.items():
        sizes = sorted({one["n"] for one in scores.values()})
        yield row(tier, *(_cell(scores.get(name)) for name in columns), ", ".join(map(str, sizes)))
    yield ""


def _cell(scored: Figures | None) -> str:
    """Write a share with its interval; a dash where it was not measured."""
    return percent(scored["mean"], scored["ci"]) if scored else "–"
