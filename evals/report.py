"""Figures of the pocket benchmark as JSON, as a page of Markdown and as plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pleinair.app.runs.results import installed
from pleinair.evals.cases import TIERS, Case, cluster, render_case
from pleinair.evals.metrics import calibration, calibration_error, estimate, interval_of_share, mean, ratio
from pleinair.evals.run import GRAPHS, Judge, Judgement, Result
from pleinair.tools.storage.artifacts import ArtifactStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Figures = dict[str, Any]  # JSON

PACKAGES = "pleinair langgraph torch diffusers transformers open_clip_torch numpy scipy".split()
PAIRS = (
    ("pleinair", "base"),
    ("pleinair", "imagerag"),
    ("react", "pleinair"),
    ("crossmodal_satisfied", "crossmodal"),
)
COSTS = ("seconds_per_run", "images_per_run", "mllm_calls_per_run", "images_per_accepted", "images_per_right")
COLOURS = ("#b8b2a6", "#5b8e9c", "#8aa67a", "#c5d1b0", "#d9a441", "#c8553d")
EXAMPLES = 4  # cases of each tier


def summarise(results: Sequence[Result], *, prompts: int, seed: int, command: str) -> Figures:
    """Compute every figure of the benchmark; shares are in 0..1, intervals cover 95 %, species resampled."""
    frame = pd.json_normalize([plain(result) for result in results])
    clusters = {result.case.id: cluster(result.case) for result in results}
    tiers = {}
    for tier in TIERS:
        hits = _by_case(frame[frame["case.tier"] == tier])
        tiers[tier] = hits, [clusters[id] for id in hits.index]
    graphs = {column: _costs(frame[frame["column"] == column]) for column in GRAPHS}
    judgements = [item for result in results if result.column == "pleinair" for item in result.judgements]
    return {
        **{
            tier: {
                column: estimate(hits[column], 0, 1, seed=seed, name="accuracy", groups=species)
                for column in GRAPHS
            }
            for tier, (hits, species) in tiers.items()
        },
        "critic": _critic(judgements),
        "seconds_per_run": graphs["pleinair"]["seconds_per_run"],
        "gains": {
            tier: {
                f"{better} - {worse}": estimate(
                    hits[better] - hits[worse], -1, 1, seed=seed, name="gain", groups=species
                )
                for better, worse in PAIRS
            }
            for tier, (hits, species) in tiers.items()
        },
        "graphs": graphs,
        "prompts": prompts,
        "seed": seed,
        "command": command,
        "versions": versions(),
    }


def judge_rendered(cases: Sequence[Case], judge: Judge, seed: int) -> Figures:
    """Compute by tier the share that is right of the images that the world's own renderer draws of the cases.

    It is what a perfect generator would reach by this judge.
    """
    figures: Figures = {}
    for tier in TIERS:
        chosen = [case for case in cases if case.tier == tier]
        hits = [float(all(judge.shows(render_case(case), case.species).values())) for case in chosen]
        score = estimate(hits, 0, 1, seed=seed, name="accuracy", groups=list(map(cluster, chosen)))
        figures[tier] = {"renderer": score}
    return figures


def plain(result: Result) -> Figures:
    """Return one result as JSON."""
    fields = asdict(result) | {"usage": result.usage.model_dump(), "right": result.right}
    del fields["picture"]
    return fields


def _by_case(rows: pd.DataFrame) -> pd.DataFrame:
    """Return for each case, in their order, whether it is right (1.0) in each column."""
    hits = rows.pivot(index="case.id", columns="column", values="right").astype(float)
    return hits.loc[rows["case.id"].unique()]


def _costs(runs: pd.DataFrame) -> Figures:
    images = int(runs["usage.images"].sum())
    return {
        "seconds_per_run": mean(runs["seconds"]),
        "images_per_run": mean(runs["usage.images"]),
        "mllm_calls_per_run": mean(runs["usage.mllm_calls"]),
        "images_per_accepted": ratio(images, int((runs["ending"] == "accepted").sum())),
        "images_per_right": ratio(images, int(runs["right"].sum())),
        "endings": {ending: int(n) for ending, n in runs["ending"].value_counts().sort_index().items()},
        "faults": sorted(set(runs["reason"][runs["ending"] == "failed"])),
    }


def _critic(judgements: Sequence[Judgement]) -> Figures:
    """Score the critic's rows against the judge, over every image and concept of the loop."""
    present, true = [item.present for item in judgements], [item.true for item in judgements]
    beliefs = [item.belief for item in judgements]
    both = sum(item.present and item.true for item in judgements)
    return {
        "precision": ratio(both, sum(present)),
        "precision_ci": interval_of_share(both, sum(present)),
        "recall": ratio(both, sum(true)),
        "recall_ci": interval_of_share(both, sum(true)),
        "ece": calibration_error(beliefs, true),
        "bins": calibration(beliefs, true),
        "n": len(judgements),
        "said": sum(present),
        "true": sum(true),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the figures depend on."""
    return {"python": sys.version.split()[0]} | {name: installed(name) for name in PACKAGES}


def write_markdown(figures: Figures) -> str:
    """Return the page: what was measured, and every figure with its n and interval."""
    return "\n".join((*_opening(figures), *accuracies(figures), *_tables(figures)))


def _opening(figures: Figures) -> Iterator[str]:
    yield "# Pocket benchmark\n"
    yield "Pocket models, a miniature world: these figures compare graphs, not images of the real world.\n"
    yield f"{figures['prompts']} prompts, seed {figures['seed']}, the same cases and noise for every graph."
    yield "An image is right if an independent classifier finds every species of the prompt in it."
    yield "`crossmodal` scores by the mean over all sub-queries, as published; `crossmodal_satisfied`, ours,"
    yield "by those in an image's caption. Rules that imitate an MLLM's tool calls drive `react`."
    yield "Brackets are 95 % intervals by a bootstrap over species, whose number is the last column: prompts"
    yield "about one species are not independent. A prompt of several counts under its first rare one.\n"
    yield f"```sh\n{figures['command']}\n```\n"
    yield ", ".join(f"{name} {number}" for name, number in figures["versions"].items()) + "\n"


def accuracies(figures: Figures) -> Iterator[str]:
    """Yield the lines of the table of right images, which the README repeats; older figures lack tiers."""
    yield "## Right images\n"
    tiers: dict[str, Figures] = {tier: figures[tier] for tier in TIERS if tier in figures}
    yield from table(share_rows("tier", tiers, "accuracy", "species"))


def _tables(figures: Figures) -> Iterator[str]:
    if "rendered" in figures:
        yield "\n## Right images by the world's own renderer, as a perfect generator would have them\n"
        yield from table(share_rows("tier", figures["rendered"], "accuracy", "species"))
    yield "\n## Gain on the same cases\n"
    yield from table(share_rows("tier", figures["gains"], "gain", "species"))
    yield "\n## Cost of a run\n"
    yield from table(
        {
            "graph": column,
            **{key.replace("_", " "): decimal(cost[key]) for key in COSTS},
            "endings": ", ".join(f"{n} {ending}" for ending, n in cost["endings"].items()),
            "n": figures["prompts"],
        }
        for column, cost in figures["graphs"].items()
    )
    critic = figures["critic"]
    yield "\n## Critic\n"
    yield f"{critic['n']} rows of the loop's ledgers about species, against the classifier.\n"
    for name, n in (("precision", critic["said"]), ("recall", critic["true"])):
        yield f'- {name} of "present": {percent(critic[name], critic[f"{name}_ci"])}, n = {n}'
    yield f"- expected calibration error, ten bins: {decimal(critic['ece'])}, n = {critic['n']}\n"


def table(rows: Iterator[Mapping[str, object]]) -> Iterator[str]:
    """Yield the lines of a Markdown table; the keys of the first row are its head."""
    for number, row in enumerate(rows):
        if not number:
            yield f"| {' | '.join(row)} |"
            yield f"| {' | '.join('---' for _ in row)} |"
        yield f"| {' | '.join(map(str, row.values()))} |"


def share_rows(
    head: str, tiers: Mapping[str, Figures], value: str = "mean", groups: str = ""
) -> Iterator[Figures]:
    """Yield a row for each tier: the columns' shares with intervals, n, and the number of `groups`."""
    columns = dict.fromkeys(column for cells in tiers.values() for column in cells)
    for tier, cells in tiers.items():
        shares = {
            name: percent(cells[name][value], cells[name]["ci"]) if name in cells else "–" for name in columns
        }
        counts = {"n": "n"} | ({groups: "groups"} if groups else {})
        sizes = {name: sorted({cell[key] for cell in cells.values()}) for name, key in counts.items()}
        yield {head: tier, **shares, **{name: ", ".join(map(str, n)) for name, n in sizes.items()}}


def percent(share: float | None, ci: Sequence[float] | None) -> str:
    """Format a share and its interval in percent; a dash for None."""
    if share is None or ci is None:
        return "–"
    return f"{100 * share:.1f} % [{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]"


def decimal(value: float | None) -> str:
    """Format a number with two decimals; a dash for None."""
    return "–" if value is None else f"{value:.2f}"


def plot(figures: Figures, folder: Path) -> list[Path]:
    """Write `accuracy.png` and `calibration.png`; return their paths."""
    from matplotlib.figure import Figure

    caption = (
        f"{figures['prompts']} prompts, seed {figures['seed']}, 95 % intervals by species. Pocket models."
    )
    paths = []
    for name, draw in (("accuracy", _plot_accuracy), ("calibration", _plot_calibration)):
        figure = Figure(figsize=(6, 4), layout="constrained")
        draw(figure.add_subplot(), figures)
        figure.supxlabel(caption, fontsize=8)
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _plot_accuracy(axes: Axes, figures: Figures) -> None:
    labels = {tier: f"{tier}\nn = {figures[tier]['base']['n']}" for tier in TIERS}
    scores = {column: {labels[tier]: figures[tier][column] for tier in TIERS} for column in GRAPHS}
    plot_bars(axes, scores, "accuracy", COLOURS, len(GRAPHS))
    axes.set_ylabel("share of right images")


def plot_bars(
    axes: Axes, scores: Mapping[str, Mapping[str, Figures]], value: str, colours: Sequence[str], columns: int
) -> None:
    """Plot a group of bars with intervals for each label; `scores` are by colour, then by label.

    A score holds its `value`, 0..1, and its interval `ci`; the legend has `columns` columns.
    """
    labels = list(dict.fromkeys(label for series in scores.values() for label in series))
    width = 0.8 / len(scores)
    for number, (name, series) in enumerate(scores.items()):
        means = np.array([score[value] for score in series.values()])
        low, high = np.array([score["ci"] for score in series.values()]).T
        places = [labels.index(label) + width * (number - (len(scores) - 1) / 2) for label in series]
        errors, colour = [means - low, high - means], colours[number % len(colours)]
        axes.bar(places, means, 0.9 * width, yerr=errors, capsize=2, color=colour, label=name)
    axes.set(ylim=(0, 1.05), xticks=range(len(labels)), xticklabels=labels)
    axes.legend(frameon=False, fontsize=8, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1))


def _plot_calibration(axes: Axes, figures: Figures) -> None:
    bins = pd.DataFrame(figures["critic"]["bins"], columns=["belief", "share", "n"])
    axes.plot([0, 1], [0, 1], color=COLOURS[0], linewidth=1)
    axes.scatter(bins["belief"], bins["share"], 8 + bins["n"], color=COLOURS[-1])
    axes.set(
        xlabel="critic's belief that a species is present", ylabel="share that is", xlim=(0, 1), ylim=(0, 1)
    )
    axes.set_title(f"{figures['critic']['n']} rows; area grows with the rows in a bin", fontsize=9)


def plot_examples(results: Sequence[Result], store: ArtifactStore, path: Path) -> Path:
    """Write a sheet of each tier's first cases, a row each: every graph's image, right or wrong."""
    from matplotlib.figure import Figure

    cases = [list(group) for _, group in groupby(results, lambda result: result.case.id)]
    rows = [
        case for tier in TIERS for case in [case for case in cases if case[0].case.tier == tier][:EXAMPLES]
    ]
    figure = Figure(figsize=(2.3 * len(GRAPHS), 1.9 * len(rows)), layout="constrained")
    for line, case in zip(figure.subplots(len(rows), len(GRAPHS), squeeze=False), rows, strict=True):
        line[0].set_title(case[0].case.prompt, fontsize=8, loc="left")
        for axes, result in zip(line, case, strict=True):
            if result.picture:
                axes.imshow(store.open(result.picture), interpolation="nearest")
            axes.set(xticks=[], yticks=[], xlabel=f"{result.column}: {'right' if result.right else 'wrong'}")
    figure.savefig(path, dpi=110)
    return path


def write_report(figures: Figures, page: str, json_path: Path, page_path: Path) -> None:
    """Write the figures as JSON and the page, into folders that are created if missing."""
    for path, text in ((json_path, json.dumps(figures, indent=2) + "\n"), (page_path, page)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
