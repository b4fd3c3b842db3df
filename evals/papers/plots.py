"""Draw one picture for each section of the papers' claims."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.evals.papers.claims import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#5b8e9c", "#c8553d", "#b8b2a6", "#7a9e5e", "#8d6a9f")


def plot(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `papers-SECTION.png` for every section there is; give their paths."""
    about = figures["about"]
    caption = f"{about['prompts']} prompts, {about['seeds']} seeds, 95 % intervals. Pocket models."
    return [
        _plot(name, figures[name]["measures"], caption, folder / f"papers-{name}.png")
        for name in TITLES
        if name in figures
    ]


def _plot(name: str, measures: Mapping[str, Any], caption: str, path: Path) -> Path:
    from matplotlib.figure import Figure

    shown = {key: tiers for key, tiers in measures.items() if _has_intervals(tiers)}
    figure = Figure(figsize=(5.2 * max(len(shown), 1), 4), layout="constrained")
    figure.suptitle(TITLES[name], fontsize=11)
    for axes, (measure, tiers) in zip(
        figure.subplots(1, max(len(shown), 1), squeeze=False)[0], shown.items(), strict=False
    ):
        _draw(axes, measure, tiers)
    figure.supxlabel(caption, fontsize=8)
    figure.savefig(path, dpi=130)
    return path


def _has_intervals(tiers: Mapping[str, Any]) -> bool:
    return any(score["ci"] for scores in tiers.values() for score in scores.values())


def _draw(axes: Axes, measure: str, tiers: Mapping[str, Any]) -> None:
    """Draw a group of bars for each column, a bar a tier."""
    columns = list(dict.fromkeys(name for scores in tiers.values() for name in scores))
    width = 0.8 / len(tiers)
    for number, (tier, scores) in enumerate(tiers.items()):
        there = [(place, scores[name]) for place, name in enumerate(columns) if name in scores]
        heights = [score["mean"] for _, score in there]
        axes.bar(
            [place + width * (number - (len(tiers) - 1) / 2) for place, _ in there],
            heights,
            0.9 * width,
            yerr=[
                [score["mean"] - score["ci"][0] for _, score in there],
                [score["ci"][1] - score["mean"] for _, score in there],
            ],
            capsize=2,
            color=COLOURS[number % len(COLOURS)],
            label=f"{tier}, n = {max(score['n'] for _, score in there)}",
        )
    axes.set(ylim=(0, 1.05), ylabel=measure, xticks=range(len(columns)))
    axes.set_xticklabels(columns, rotation=20, fontsize=8)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
