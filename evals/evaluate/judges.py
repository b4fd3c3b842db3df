"""Scorers of an evaluation, independent of retrieval: those that the user names, or the profile's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.app.engines import build_backend
from pleinair.app.pocket import is_pocket
from pleinair.app.settings import Settings
from pleinair.evals.metrics import Interval
from pleinair.evals.scores.encoders import encoder_text
from pleinair.evals.scores.gptscore import GptScore
from pleinair.evals.scores.items import Generated, OnProgress, Scorer
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from pleinair.evals.pocket.oracle import Oracle
    from pleinair.evals.scores.gptscore import Meter

_COMMIT = "18d0535469bb561bf468d76c1d73aa35156c922b"  # which public projects pin
DEFAULTS = (f"clip:ViT-L-14=openai@{_COMMIT}",)  # retrieval's is ViT-B-32 in most profiles
KINDS = ("clip", "siglip", "dino", "dinov2", "accuracy", "gptscore")  # of single images, higher is better
FETCH = (
    "Fetch weights that retrieval does not use: `hf download facebook/dinov2-base --local-dir dinov2` "
    "(346 MB, Apache-2.0), then --scorer dinov2:dinov2; or the default, `hf download "
    f"timm/vit_large_patch14_clip_224.openai --revision {_COMMIT}` (1.7 GB, Apache-2.0)."
)


class SameSpecies:
    """Share of images that show the species of the concept's true images, by the pocket world's oracle.

    The species of the true images is the one that most of them show according to the oracle, so that a
    library's captions do not decide. Not covered: images of another world, which all score 0.
    """

    needs_truth = True
    bounds: Interval = (0.0, 1.0)
    title = "same species as the true images"
    name = f"{title}, pocket oracle"

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    def score(self, items: Sequence[Generated], on_progress: OnProgress) -> list[float]:
        """Return 1.0 for each image that shows the species, else 0.0."""
        wanted: dict[tuple[Path, ...], str] = {}
        values = []
        for done, item in enumerate(items, start=1):
            if item.truth not in wanted:
                wanted[item.truth] = self._species(item.truth)
            values.append(float(wanted[item.truth] in self._names(item.image)))
            on_progress(done, len(items))
        return values

    def _species(self, paths: Sequence[Path]) -> str:
        counts = Counter(name for path in paths for name in self._names(path))
        return counts.most_common(1)[0][0] if counts else ""

    def _names(self, path: Path) -> list[str]:
        return list(dict.fromkeys(finding.name for finding in self._oracle.species(read_untrusted(path))))


def open_scorers(
    texts: Sequence[str], settings: Settings, allow_same: bool, meter: Meter | None = None
) -> list[Scorer]:
    """Return the scorers of an evaluation; the first decides the verdict.

    Without `texts` it is the pocket world's oracle for its generator, else `DEFAULTS`. Scores by similarity
    to true images come before those to the prompt: they tell whether the user's own thing is shown. `meter`
    limits and counts the money of `gptscore`.

    Raises:
        BadInput: a scorer is unknown, of sets of images or better if lower, retrieval's own encoder, or its
            weights are not on this machine.
    """
    from pleinair.evals.scores.open import FORMS, accepted, open_scorer

    forms = {form: what for form, what in FORMS.items() if _kind(form) in KINDS}
    for text in texts:
        if _kind(text) not in KINDS:
            raise BadInput(f"{text!r} is no scorer of single images.", accepted(forms))
    if not texts and is_pocket(settings):
        from pleinair.evals.pocket.oracle import Oracle

        return [SameSpecies(Oracle())]
    model = build_backend("mllm", settings.mllm) if "gptscore" in texts else None
    scorers: list[Scorer] = []
    for text in texts or DEFAULTS:
        try:
            opened = open_scorer(
                text,
                retriever=encoder_text(settings.encoder),
                model=model,
                allow_same=allow_same,
                meter=meter,
            )
        except PleinairError as error:
            if texts and isinstance(error, BadInput):
                raise
            raise BadInput(f"No scorer: {error.message}", FETCH) from error
        scorers += sorted(opened, key=lambda scorer: not scorer.needs_truth)
    return scorers


def _kind(text: str) -> str:
    return text.partition(":")[0]


def is_independent(scorer: Scorer) -> bool:
    """Return whether a scorer shares no model with the loop: the MLLM is its critic too."""
    return not isinstance(scorer, GptScore)
