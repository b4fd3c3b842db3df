"""Turn results into figures: one JSON document, and the same as a page of Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pleinair.evals import metrics
from pleinair.evals.cases import TIERS
from pleinair.evals.run import GRAPHS, Judgement, Result

Figures = dict[str, Any]  # JSON

PACKAGES = (
    "pleinair",
    "langgraph",
    "torch",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "numpy",
    "scipy",
)
PAIRS = (("pleinair", "base"), ("pleinair", "imagerag"), ("react", "pleinair"))


def summarise(results: Sequence[Result], *, prompts: int, seed: int, command: str) -> Figures:
    """Compute every figure of a benchmark; shares are in 0..1, intervals cover 95 %."""
    by_column = {column: [r for r in results if r.column == column] for column in GRAPHS}
    graphs = {column: costs(runs) for column, runs in by_column.items()}
    return {
        **{
            tier: {column: _score(_at(runs, tier), seed) for column, runs in by_column.items()}
            for tier in TIERS
        },
        "critic": critic([j for result in by_column["pleinair"] for j in result.judgements]),
        "seconds_per_run": graphs["pleinair"]["seconds_per_run"],
        "gains": {tier: dict(gains(by_column, tier, seed)) for tier in TIERS},
        "graphs": graphs,
        "prompts": prompts,
        "seed": seed,
        "command": command,
        "versions": versions(),
    }


def _at(results: Sequence[Result], tier: str) -> list[Result]:
    """Keep the results of one tier."""
    return [result for result in results if result.case.tier == tier]


def _score(results: Sequence[Result], seed: int) -> Figures:
    """Give the share of right pictures with its interval."""
    hits = [result.right for result in results]
    ci = metrics.interval([float(hit) for hit in hits], 0, 1, seed)
    return {"accuracy": metrics.accuracy(hits), "ci": ci and list(ci), "n": len(hits)}


def gains(by_column: dict[str, list[Result]], tier: str, seed: int) -> Iterator[tuple[str, Figures]]:
    """Give how much more often one column is right than another on the same cases, with intervals."""
    for better, worse in PAIRS:
        pairs = zip(_at(by_column[better], tier), _at(by_column[worse], tier), strict=True)
        gain = [float(ours.right) - float(theirs.right) for ours, theirs in pairs]
        ci = metrics.interval(gain, -1, 1, seed)
        yield f"{better} - {worse}", {"gain": metrics.mean(gain), "ci": ci and list(ci), "n": len(gain)}


def costs(results: Sequence[Result]) -> Figures:
    """Give what a run of one column costs and how it ends."""
    images = sum(result.usage.images for result in results)
    accepted = sum(result.ending == "accepted" for result in results)
    endings = sorted({result.ending for result in results})
    return {
        "seconds_per_run": metrics.mean([result.seconds for result in results]),
        "images_per_run": metrics.mean([result.usage.images for result in results]),
        "mllm_calls_per_run": metrics.mean([result.usage.mllm_calls for result in results]),
        "images_per_accepted": metrics.per_accepted(images, accepted),
        "images_per_right": metrics.per_accepted(images, sum(result.right for result in results)),
        "endings": {ending: sum(result.ending == ending for result in results) for ending in endings},
        "faults": sorted({result.reason for result in results if result.ending == "failed"}),
    }


def critic(judgements: Sequence[Judgement]) -> Figures:
    """Score the critic's rows against the judge, over every picture and concept of the loop."""
    said, true = [j.said for j in judgements], [j.true for j in judgements]
    beliefs = [j.belief for j in judgements]
    right, found = metrics.precision(said, true), metrics.recall(said, true)
    return {
        "precision": _ratio(*right),
        "precision_ci": metrics.interval_of_share(*right),
        "recall": _ratio(*found),
        "recall_ci": metrics.interval_of_share(*found),
        "ece": metrics.calibration_error(beliefs, true),
        "bins": metrics.calibration(beliefs, true),
        "n": len(judgements),
        "said": right[1],
        "true": found[1],
    }


def _ratio(part: int, whole: int) -> float | None:
    """Divide; None where there is nothing to divide by."""
    return part / whole if whole else None


def plain(result: Result) -> Figures:
    """Give one result as a line of the record."""
    return {
        "case": asdict(result.case),
        "graph": result.column,
        "ending": result.ending,
        "reason": result.reason,
        "shown": dict(result.shown),
        "usage": result.usage.model_dump(),
        "judgements": [asdict(one) for one in result.judgements],
    }


def versions() -> dict[str, str]:
    """Give the versions that the figures depend on."""
    return {"python": sys.version.split()[0]} | {name: _installed(name) for name in PACKAGES}


def _installed(distribution: str) -> str:
    """Give the version of a distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def write_markdown(figures: Figures) -> str:
    """Write the page: what was measured, every figure with its n and interval, and what it does not say."""
    return "\n".join(
        (*_opening(figures), *accuracies(figures), *_gains(figures), *_costs(figures), *_critic(figures))
    )


def _opening(figures: Figures) -> Iterator[str]:
    yield "# Pocket benchmark\n"
    yield "Pocket models, a miniature world: these figures compare graphs, not pictures of the real world.\n"
    yield f"{figures['prompts']} prompts, seed {figures['seed']}, the same cases and noise for every graph."
    yield "A picture is right when an independent classifier finds every species of the prompt in it."
    yield "Brackets are 95 % intervals over prompts; prompts about one species are treated as independent.\n"
    yield f"```sh\n{figures['command']}\n```\n"
    yield ", ".join(f"{name} {number}" for name, number in figures["versions"].items()) + "\n"


def accuracies(figures: Figures) -> Iterator[str]:
    """Write the table of right pictures, which the README repeats."""
    yield "## Right pictures\n"
    yield from table_head("tier", *GRAPHS, "n")
    for tier in TIERS:
        cells = [percent(figures[tier][column]["accuracy"], figures[tier][column]["ci"]) for column in GRAPHS]
        yield row(tier, *cells, figures[tier]["base"]["n"])


def _gains(figures: Figures) -> Iterator[str]:
    yield "\n## Gain on the same cases\n"
    yield from table_head("tier", *(f"{better} - {worse}" for better, worse in PAIRS), "n")
    for tier, gained in figures["gains"].items():
        cells = [percent(one["gain"], one["ci"]) for one in gained.values()]
        yield row(tier, *cells, next(iter(gained.values()))["n"])


def _costs(figures: Figures) -> Iterator[str]:
    keys = (
        "seconds_per_run",
        "images_per_run",
        "mllm_calls_per_run",
        "images_per_accepted",
        "images_per_right",
    )
    yield "\n## Cost of a run\n"
    yield from table_head("graph", *(key.replace("_", " ") for key in keys), "endings", "n")
    for column, cost in figures["graphs"].items():
        endings = ", ".join(f"{n} {ending}" for ending, n in cost["endings"].items())
        yield row(column, *(decimal(cost[key]) for key in keys), endings, figures["prompts"])


def _critic(figures: Figures) -> Iterator[str]:
    seen = figures["critic"]
    yield "\n## Critic\n"
    yield f"{seen['n']} rows of the loop's ledgers about species, against the classifier.\n"
    yield f'- precision of "present": {percent(seen["precision"], seen["precision_ci"])}, n = {seen["said"]}'
    yield f'- recall of "present": {percent(seen["recall"], seen["recall_ci"])}, n = {seen["true"]}'
    yield f"- expected calibration error, ten bins: {decimal(seen['ece'])}, n = {seen['n']}\n"


def table_head(*cells: str) -> Iterator[str]:
    """Write the first two lines of a table."""
    yield row(*cells)
    yield row(*("---" for _ in cells))


def row(*cells: object) -> str:
    """Write one line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def percent(share: float | None, ci: Sequence[float] | None) -> str:
    """Write a share and its interval in percent; a dash for none."""
    if share is None or ci is None:
        return "–"
    return f"{100 * share:.1f} % [{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]"


def decimal(value: float | None) -> str:
    """Write a number with two decimals; a dash for none."""
    return "–" if value is None else f"{value:.2f}"
