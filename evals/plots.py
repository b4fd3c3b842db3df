"""Draw the report's pictures: bars, the critic's calibration, and a sheet of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.evals.cases import TIERS
from pleinair.evals.run import GRAPHS, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pleinair.tools.storage.artifacts import ArtifactStore

COLOURS = ("#b8b2a6", "#5b8e9c", "#8aa67a", "#d9a441", "#c8553d")
BAR = 0.8 / len(GRAPHS)  # width, where two tiers are 1 apart
EXAMPLES = 4  # cases a tier


def plot(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `accuracy.png` and `calibration.png`; give their paths."""
    from matplotlib.figure import Figure

    caption = f"{figures['prompts']} prompts, seed {figures['seed']}, 95 % intervals. Pocket models."
    paths = []
    for name, draw in (("accuracy", _draw_accuracy), ("calibration", _draw_calibration)):
        figure = Figure(figsize=(6, 4), layout="constrained")
        draw(figure.add_subplot(), figures)
        figure.supxlabel(caption, fontsize=8)
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _draw_accuracy(axes: Axes, figures: Mapping[str, Any]) -> None:
    for number, (column, colour) in enumerate(zip(GRAPHS, COLOURS, strict=True)):
        scores = [figures[tier][column] for tier in TIERS]
        heights = [score["accuracy"] for score in scores]
        below = [score["accuracy"] - score["ci"][0] for score in scores]
        above = [score["ci"][1] - score["accuracy"] for score in scores]
        places = [tier + BAR * (number - (len(GRAPHS) - 1) / 2) for tier in range(len(TIERS))]
        axes.bar(places, heights, 0.9 * BAR, yerr=[below, above], capsize=2, color=colour, label=column)
    labels = [f"{tier}\nn = {figures[tier]['base']['n']}" for tier in TIERS]
    axes.set(ylim=(0, 1.02), ylabel="share of right pictures", xticks=range(len(TIERS)), xticklabels=labels)
    axes.legend(frameon=False, ncols=len(GRAPHS), loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8)


def _draw_calibration(axes: Axes, figures: Mapping[str, Any]) -> None:
    bins = figures["critic"]["bins"]
    axes.plot([0, 1], [0, 1], color="#b8b2a6", linewidth=1)
    axes.scatter([b[0] for b in bins], [b[1] for b in bins], [8 + b[2] for b in bins], color=COLOURS[-1])
    axes.set(
        xlabel="critic's belief that a species is present", ylabel="share that is", xlim=(0, 1), ylim=(0, 1)
    )
    axes.set_title(f"{figures['critic']['n']} rows; area grows with the rows in a bin", fontsize=9)


def plot_examples(results: Sequence[Result], store: ArtifactStore, path: Path) -> Path:
    """Write a sheet of each tier's first cases, a line each: what every graph drew, right ones marked."""
    from matplotlib.figure import Figure

    by_case: dict[str, list[Result]] = {}
    for result in results:
        by_case.setdefault(result.case.id, []).append(result)
    chosen = [case for tier in TIERS for case in [c for c in by_case if c.startswith(tier)][:EXAMPLES]]
    figure = Figure(figsize=(2.3 * len(GRAPHS), 1.9 * len(chosen)), layout="constrained")
    grid = figure.subplots(len(chosen), len(GRAPHS), squeeze=False)
    for line, case in zip(grid, chosen, strict=True):
        line[0].set_title(by_case[case][0].case.prompt, fontsize=8, loc="left")
        for axes, result in zip(line, by_case[case], strict=True):
            _draw_example(axes, result, store)
    figure.savefig(path, dpi=110)
    return path


def _draw_example(axes: Axes, result: Result, store: ArtifactStore) -> None:
    if result.picture:
        axes.imshow(store.open(result.picture), interpolation="nearest")
    axes.set(xticks=[], yticks=[], xlabel=f"{result.column}: {'right' if result.right else 'wrong'}")
