"""Scorers by the names of their models, as the command line and the benchmarks write them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.app.paths import places
from pleinair.evals.scores.encoders import open_clip_encoder, open_dino
from pleinair.evals.scores.features import Features
from pleinair.evals.scores.items import Scorer
from pleinair.evals.scores.similarity import Diversity, ImageSimilarity, Recognition, TextSimilarity
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


_TITLES = {"clip": "CLIP", "siglip": "SigLIP", "dino": "DINO", "dinov2": "DINOv2"}
FORMS = {  # of the text of a scorer, with what it measures
    "clip:MODEL=WEIGHTS": "cosine to the prompt, and to real images (CLIP-T, CLIP-I)",
    "siglip:MODEL=WEIGHTS": "the same, under SigLIP's name",
    "dino:FOLDER": "cosine to real images by DINO's class token",
    "dinov2:FOLDER": "the same by DINOv2",
    "accuracy:clip:MODEL=WEIGHTS": "share of images whose class name is the nearest of all",
    "diversity:ENCODER": "mean of 1 - cosine among the images of one prompt",
}


def open_scorer(
    text: str,
    *,
    retriever: str,
    model: BaseChatModel | None = None,
    allow_same: bool = False,
    cache: Path | None = None,
) -> list[Scorer]:
    """Open the scores of one model.

    Args:
        text: as in `FORMS`; an open_clip model is `MODEL=WEIGHTS`, `hf-hub:OWNER/NAME` (with `@COMMIT`), or
            `local-dir:FOLDER`. ENCODER is `clip:…`, `siglip:…`, `dino:…` or `dinov2:…`.
        retriever: the retrieval's encoder, which is refused; "" if there was no retrieval.
        model: the language model of `gptscore`.
        allow_same: accept the retrieval's encoder.
        cache: folder of the vectors; in the home's cache unless given.

    Raises:
        BadInput: a form that does not exist, the retrieval's own encoder, or a model that cannot be opened.
    """
    folder = cache or places().cache / "scores"
    kind, _, rest = text.partition(":")
    if kind in ("clip", "siglip") and rest:
        encoder = open_clip_encoder(rest, retriever, allow_same=allow_same)
        features = Features(encoder, folder)
        title = _TITLES[kind]
        return [TextSimilarity(f"{title}-T", encoder, features), ImageSimilarity(f"{title}-I", features)]
    if kind in ("dino", "dinov2") and rest:
        return [ImageSimilarity(_TITLES[kind], Features(open_dino(kind, rest), folder))]
    if kind == "accuracy" and rest.startswith(("clip:", "siglip:")):
        encoder = open_clip_encoder(rest.partition(":")[2], retriever, allow_same=allow_same)
        return [Recognition(encoder, Features(encoder, folder))]
    if kind == "diversity" and rest:
        return [Diversity(_features(rest, retriever, allow_same, folder))]
    raise _unknown(text)


def _features(text: str, retriever: str, allow_same: bool, folder: Path) -> Features:
    """Open the vectors by an encoder that is named after another score."""
    kind, _, rest = text.partition(":")
    if kind in ("clip", "siglip") and rest:
        return Features(open_clip_encoder(rest, retriever, allow_same=allow_same), folder)
    if kind in ("dino", "dinov2") and rest:
        return Features(open_dino(kind, rest), folder)
    raise _unknown(text)


def _unknown(text: str) -> BadInput:
    forms = "".join(f"\n  {form}: {what}" for form, what in FORMS.items())
    return BadInput(f"{text!r} is no scorer. Accepted:{forms}")
