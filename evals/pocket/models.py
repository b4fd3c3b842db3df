"""Measure the pocket encoder, concept detector and oracle: `python -m pleinair.evals.pocket.models`.

The generator is measured by `python -m pleinair.evals.pocket.generator`, which takes longer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pleinair.tools.pocket.training.card import Figures

ORACLE = Path(__file__).parents[1] / "data" / "ORACLE.md"
SCENES = 500
Measured = tuple["Figures", str]  # the figures, and the section of the card that tells them


def _encoder() -> Measured:
    """Measure how often a name finds its picture."""
    from pleinair.tools.pocket.training import recall
    from pleinair.tools.pocket.training.encoder import FOLDER

    figures = recall.measure(FOLDER)
    return figures, recall.section(figures)


def _detector() -> Measured:
    """Measure precision, recall, calibration and boxes of what the critic sees."""
    from safetensors.torch import load_file

    from pleinair.tools.pocket.detector import DetectorNet
    from pleinair.tools.pocket.training import detector as trained

    net = DetectorNet(**trained.NET)
    state = load_file(trained.FOLDER / "model.safetensors")
    net.load_state_dict({key: value.float() for key, value in state.items()})
    calibration = json.loads((trained.FOLDER / "config.json").read_text("utf-8"))["calibration"]
    figures = trained.measure(net.eval(), trained.Frozen(), calibration["scale"], calibration["shift"])
    return figures, trained.section(figures)


def _oracle() -> Measured:
    """Measure how often the judge of the evaluations names exactly what stands in a rendered scene."""
    from pleinair.evals.pocket import train_oracle
    from pleinair.evals.pocket.oracle import Oracle
    from pleinair.tools.pocket.training.card import figures_section

    figures = {}
    for worn, state in ((0.0, "clean"), (1.0, "worn")):
        shares = train_oracle.measure(Oracle(), SCENES, worn)
        for share, what in zip(shares, ("one subject", "two subjects"), strict=True):
            bar = ">= .99" if (state, what) == ("clean", "one subject") else "-"
            figures[f"right species, {what}, {state} pictures"] = (f"{share:.3f}", bar)
    command = "python -m pleinair.evals.pocket.models"
    return figures, figures_section(figures, f"{SCENES} pictures each", command)


MODELS: dict[str, Callable[[], Measured]] = {"encoder": _encoder, "detector": _detector, "oracle": _oracle}


def card_of(model: str) -> Path:
    """Find the card of a model."""
    from pleinair.tools.model_files.folders import SHIPPED
    from pleinair.tools.pocket.training.card import NAME

    return ORACLE if model == "oracle" else SHIPPED / model / NAME


def main() -> None:
    """Measure, print, and with --cards write the figures into the cards beside the weights."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.pocket.models", description=__doc__)
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--cards", action="store_true", help="write the figures into the model cards")
    options = parser.parse_args()
    for model in [options.model] if options.model else MODELS:
        figures, section = MODELS[model]()
        for name, (figure, bar) in figures.items():
            sys.stdout.write(f"{model}: {name}: {figure} (bar {bar})\n")
        if options.cards:
            from pleinair.tools.pocket.training.card import replace_figures

            replace_figures(card_of(model), section)


if __name__ == "__main__":
    main()
