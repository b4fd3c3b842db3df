"""Measure the loop with a critic that errs: `python -m pleinair.evals.experiments.critic_error`.

A share of the pocket critic's detections is inverted. For each share and tier: how often the oracle finds the
case's species in the loop's draft, in its result and in an image of the graph `direct`, and the differences
of equal cases. Every case is appended to a file at once and not repeated with the same engines, so a stopped
measurement continues. Not covered: errors that depend on what is shown, as a real critic's do; here each
detection errs independently of all others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pleinair.app.settings import assignments
from pleinair.evals.cases import Case, Tier, cluster, make_case
from pleinair.evals.metrics import estimate
from pleinair.evals.papers.bench import Bench, Measures
from pleinair.evals.papers.run import Cache, pocket_bench
from pleinair.evals.papers.sections import Task
from pleinair.evals.report import versions
from pleinair.evals.run import invoke
from pleinair.graphs import direct, pleinair
from pleinair.tools.types import Attempt, ModelFault

Figures = dict[str, Any]
BARRED = 0.2  # share of errors for which there are bars
MOST_WORSE = 0.02  # of known species, whose draft was right and result is not: upper end of the interval
LEAST_CASES = 500  # of known species
LEAST_GAIN = 0.6  # of rare species, over the base
_MOST_IMAGES = 3.0  # of the default budget
_COLUMNS = ("base", "draft", "result", "over draft", "over base", "worse")


def _tasks(
    cases: Sequence[Case], seed: int, section: str, measure: Callable[[Case], Measures]
) -> Iterator[Task]:
    """List the tasks of some cases; `section` is the base's or the loop's."""
    for case in cases:
        yield Task(section, "critic error", seed, case.tier, case.id, partial(measure, case))


def _run_loop(bench: Bench, case: Case) -> Measures:
    """Run the loop on a case; return whether draft and result are right, 0 or 1, and the number of images."""
    output = invoke(case, pleinair.graph, bench.context, failures=ModelFault)
    draft = output.attempts[0] if output.attempts else None
    best = output.outcome.best if output.outcome else None
    return {
        "draft": _is_right(bench, case, draft),
        "result": _is_right(bench, case, best),
        "images": float(len(output.attempts)),
    }


def _run_base(bench: Bench, case: Case) -> Measures:
    """Run the graph `direct` on a case; return whether its image is right, 0 or 1."""
    return bench.run(direct.graph, case, bench.context)


def _is_right(bench: Bench, case: Case, attempt: Attempt | None) -> float:
    if attempt is None:
        return 0.0
    return float(all(bench.judge.shows(bench.context.store.open(attempt.picture), case.species).values()))


def summarise(cases: Sequence[Case], base: Sequence[Measures], loop: Sequence[Measures]) -> Figures:
    """Return the shares, differences and images of some cases, with 95 % intervals over their species.

    That of "worse" is over the cases: what makes a result worse than its draft are the critic's errors,
    which are drawn for each image by itself.
    """
    groups = [cluster(case) for case in cases]
    share = partial(estimate, low=0, high=1, groups=groups)
    difference = partial(estimate, low=-1, high=1, groups=groups)
    pairs = list(zip(base, loop, strict=True))
    return {
        "base": share([b["right"] for b, _ in pairs]),
        "draft": share([r["draft"] for _, r in pairs]),
        "result": share([r["result"] for _, r in pairs]),
        "over draft": difference([r["result"] - r["draft"] for _, r in pairs]),
        "over base": difference([r["result"] - b["right"] for b, r in pairs]),
        "worse": estimate([float(r["result"] < r["draft"]) for _, r in pairs], 0, 1),
        "images": estimate([r["images"] for _, r in pairs], 0, _MOST_IMAGES, groups=groups),
    }


def missed_bars(figures: Mapping[str, Mapping[str, Figures]]) -> list[str]:
    """Return the bars that figures by error and tier miss; what was not measured misses its bar."""
    known, rare = (figures.get(str(BARRED), {}).get(tier) for tier in ("known", "rare"))
    missed = []
    if not known or known["worse"]["n"] < LEAST_CASES or known["worse"]["ci"][1] > MOST_WORSE:
        missed.append(f"known: at most {MOST_WORSE:.0%} worse than the draft, n >= {LEAST_CASES}")
    if not rare or rare["over base"]["mean"] < LEAST_GAIN:
        missed.append(f"rare: at least {LEAST_GAIN:.0%} over the base")
    return missed


def _measure(options: argparse.Namespace) -> Figures:
    """Measure all errors and tiers; return the figures by error and tier."""
    counts: dict[Tier, int] = {"known": options.known, "rare": options.rare}
    by_tier = {
        tier: [make_case(tier, n, options.seed) for n in range(count)]
        for tier, count in counts.items()
        if count
    }
    base: dict[str, list[Measures]] = {}
    for tier, cases in by_tier.items():
        base[tier] = _measured(options, cases, 0.0, "base")
    return {
        str(error): {
            tier: summarise(cases, base[tier], _measured(options, cases, error, "loop"))
            for tier, cases in by_tier.items()
        }
        for error in options.errors
    }


def _measured(
    options: argparse.Namespace, cases: Sequence[Case], error: float, section: str
) -> list[Measures]:
    """Return the measures of the base or of the loop, measured now or before."""
    settings = assignments(options.set) | {"mllm.error_rate": error, "mllm.error_seed": options.seed}
    bench, setup = pocket_bench(options.work.absolute(), settings)
    function = partial(_run_base if section == "base" else _run_loop, bench)
    cache = Cache(options.work / "critic_error.jsonl", setup)
    return [record["measures"] for record in cache.measure(_tasks(cases, options.seed, section, function))]


def _write_table(figures: Figures) -> str:
    """Return the figures as a Markdown table: shares in per cent, differences in points, 95 % intervals."""
    lines = [
        f"| error | tier | n | {' | '.join(_COLUMNS)} | images |",
        f"| {' | '.join(['---'] * (len(_COLUMNS) + 4))} |",
    ]
    for error, tiers in figures.items():
        for tier, row in tiers.items():
            cells = [_cell(row[name], 100, 1) for name in _COLUMNS]
            images = _cell(row["images"], 1, 2)
            lines.append(f"| {error} | {tier} | {row['base']['n']} | {' | '.join(cells)} | {images} |")
    return "\n".join(lines)


def _cell(figure: Figures, factor: int, decimals: int) -> str:
    mean, low, high = (factor * value for value in (figure["mean"], *figure["ci"]))
    return f"{mean:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def _errors(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and the bars that are missed, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--errors", type=_errors, default=[0.05, 0.1, 0.2, 0.3], help="shares, with commas")
    parser.add_argument("--known", type=int, default=500, help="cases of known species (500)")
    parser.add_argument("--rare", type=int, default=200, help="cases of rare species (200)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the cases and the errors (1)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument(
        "--work", type=Path, default=Path("reports/critic-error"), help="folder for all of it"
    )
    options = parser.parse_args(arguments)
    figures = _measure(options)
    missed = missed_bars(figures)
    print(_write_table(figures), *(f"missed: {bar}" for bar in missed), sep="\n")
    about = {"seed": options.seed, "missed": missed, "versions": versions()}
    path = options.work / "critic_error.json"
    path.write_text(json.dumps({"figures": figures, "about": about}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
