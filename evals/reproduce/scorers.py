"""Scorers of a command: the user's, or those of the paper's that the chosen tables need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pleinair.app.engines import build_backend
from pleinair.app.models.ready import find_missing_keys
from pleinair.evals.reproduce.experiment import Experiment, Options, Setup
from pleinair.evals.reproduce.plan import Sheet
from pleinair.evals.scores.encoders import encoder_text
from pleinair.evals.scores.open import measured_by
from pleinair.tools.model_files.hub import NotDownloaded
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.evals.scores.items import Scorer


def _titles(experiment: Experiment, sheets: Sequence[Sheet]) -> dict[str, tuple[str, ...]]:
    """Return for each measure of some tables the titles of the scores that measure it."""
    measures = {column.partition(" ")[2] for each in sheets for column in each.columns}
    return {name: titles for name, (titles, _) in experiment.measures.items() if name in measures}


def scorers_of(experiment: Experiment, options: Options, sheets: Sequence[Sheet]) -> list[str]:
    """Return the user's scorers, or those of the paper's that some tables need; none without a table."""
    if options.scorers or not sheets:
        return [text for text in options.scorers if text != "none" and sheets]
    needed = {title for titles in _titles(experiment, sheets).values() for title in titles}
    return [text for text in experiment.scorers if needed & {*measured_by(text)}]


def unmeasured(experiment: Experiment, sheets: Sequence[Sheet], scorers: Sequence[str]) -> list[str]:
    """Return a line for each measure that no scorer measures, nor the paper's own program."""
    measured = {title for text in scorers for title in measured_by(text)}
    own = {title for text in experiment.scorers for title in measured_by(text)}
    return [
        f"not measured: {name}, as there is no --scorer of {' or '.join(titles)}"
        for name, titles in _titles(experiment, sheets).items()
        if not measured & {*titles} and own & {*titles}
    ]


def open_scorers(
    texts: Sequence[str], experiment: Experiment, setup: Setup
) -> tuple[list[Scorer], list[str]]:
    """Return the scorers, and those whose files are not on this machine.

    Raises:
        BadInput: a scorer is none, the retrieval's own encoder, or two measure the same.
    """
    from pleinair.evals.scores.open import open_scorer

    settings, options = setup.settings, setup.options
    by_title: dict[str, str] = {}
    for text in texts:
        for title in measured_by(text):
            if title in by_title:
                raise BadInput(f"--scorer {text!r}: measures {title} as {by_title[title]!r} does; name one.")
            by_title[title] = text
    retriever = encoder_text(settings.encoder)
    scorers: list[Scorer] = []
    missing: list[str] = []
    has_key = all(fault.field != "mllm" for fault in find_missing_keys(settings))
    for text in texts:
        is_rating = text == "gptscore"
        if is_rating and not has_key:  # the key is missing for more than the score
            continue
        model = build_backend("mllm", settings.mllm) if is_rating else None
        try:
            scorers += open_scorer(
                text, retriever=retriever, model=model, allow_same=options.allow_same, meter=setup.studio
            )
        except NotDownloaded as error:
            missing.append(f"scorer {text}: {_how_to_fetch(text, error, options, experiment)}")
    return scorers, missing


def _how_to_fetch(text: str, error: NotDownloaded, options: Options, experiment: Experiment) -> str:
    """Return what a scorer lacks; of the paper's with size and license, and how its option is written."""
    if options.scorers:
        return str(error)
    facts = experiment.scorers[text]
    if "=" in text:
        return f"{facts}; {error.remedy.removesuffix('.')}: --scorer {text}@COMMIT"
    return f"{facts}; name its path: --scorer {text}"
