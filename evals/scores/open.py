"""Scorers by the names of their models, as the command line and the benchmarks write them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.app.paths import places
from pleinair.evals.scores.encoders import open_clip_encoder, open_dino
from pleinair.evals.scores.features import Features
from pleinair.evals.scores.frechet import FrechetDistance, KernelDistance
from pleinair.evals.scores.gptscore import QUESTIONS, GptScore, Meter
from pleinair.evals.scores.inception import open_inception
from pleinair.evals.scores.items import Scorer
from pleinair.evals.scores.similarity import Diversity, ImageSimilarity, Recognition, TextSimilarity
from pleinair.evals.scores.style import StyleLoss, open_vgg
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from langchain_core.language_models import BaseChatModel

    from pleinair.evals.scores.features import ImageEncoder
    from pleinair.tools.retrieval.encoder import OpenClipEncoder

    OpenEncoder = Callable[[str], OpenClipEncoder]

_BY_FEATURES = ("dino", "dinov2", "fid", "frechet", "diversity")
_TITLES = {"clip": "CLIP", "siglip": "SigLIP", "dino": "DINO", "dinov2": "DINOv2"}
MEASURED = {  # titles of the scores, by the kind of scorer
    "clip": ("CLIP-T", "CLIP-I"),
    "siglip": ("SigLIP-T", "SigLIP-I"),
    "dino": ("DINO",),
    "dinov2": ("DINOv2",),
    "accuracy": ("accuracy",),
    "diversity": ("diversity",),
    "fid": ("FID", "KID"),
    "frechet": ("Fréchet distance",),
    "style": ("style loss",),
    "gptscore": tuple(f"GPTScore {question}" for question in QUESTIONS),
}
FORMS = {  # of the text of a scorer, with what it measures
    "clip:MODEL=WEIGHTS": "cosine to the prompt, and to real images (CLIP-T, CLIP-I)",
    "siglip:MODEL=WEIGHTS": "the same, under SigLIP's name",
    "dino:FOLDER": "cosine to real images by DINO's class token",
    "dinov2:FOLDER": "the same by DINOv2",
    "accuracy:clip:MODEL=WEIGHTS": "share of images whose class name is the nearest of all",
    "diversity:ENCODER": "mean of 1 - cosine among the images of one prompt",
    "fid:WEIGHTS.pth": "FID and KID by TensorFlow's Inception-v3",
    "frechet:ENCODER": "Fréchet distance by another encoder, which is not FID",
    "style:WEIGHTS.pth": "style loss to real images by torchvision's VGG-19",
    "gptscore": "ratings by a language model: concept preservation, prompt following",
}


def open_scorer(
    text: str,
    *,
    retriever: str,
    model: BaseChatModel | None = None,
    classes: Sequence[str] = (),
    allow_same: bool = False,
    cache: Path | None = None,
    meter: Meter | None = None,
) -> list[Scorer]:
    """Open the scores of one model.

    Args:
        text: as in `FORMS`; an open_clip model is `MODEL=WEIGHTS`, `hf-hub:OWNER/NAME` (with `@COMMIT`), or
            `local-dir:FOLDER`. ENCODER is `clip:…`, `siglip:…`, `dino:…` or `dinov2:…`.
        retriever: the retrieval's encoder, which is refused; "" if there was no retrieval.
        model: the language model of `gptscore`.
        classes: all class names that `accuracy` chooses from; those of the images unless given.
        allow_same: accept the retrieval's encoder.
        cache: folder of the vectors; in the home's cache unless given.
        meter: limits and counts the money of `gptscore`.

    Raises:
        NotDownloaded: its weights are not on this machine.
        BadInput: a form that does not exist, the retrieval's own encoder, or a model that cannot be opened.
    """
    folder = cache or places().cache / "scores"
    kind, _, rest = text.partition(":")
    open_encoder = partial(open_clip_encoder, retriever=retriever, allow_same=allow_same)
    match kind:
        case "clip" | "siglip" if rest:
            encoder = open_encoder(rest)
            features, title = Features(encoder, folder), _TITLES[kind]
            return [TextSimilarity(f"{title}-T", encoder, features), ImageSimilarity(f"{title}-I", features)]
        case "accuracy" if rest.startswith(("clip:", "siglip:")):
            encoder = open_encoder(rest.partition(":")[2])
            return [Recognition(encoder, Features(encoder, folder), classes)]
        case "style" if rest:
            return [StyleLoss(open_vgg(rest))]
        case "gptscore" if not rest:
            return [GptScore(question, _required(model), folder, meter) for question in QUESTIONS]
        case _ if kind in _BY_FEATURES and rest:
            return _by_features(kind, rest, open_encoder, folder)
    raise _unknown(text)


def measured_by(text: str) -> tuple[str, ...]:
    """Return the titles of what a scorer measures, such as "CLIP-T"; none for an unknown one."""
    return MEASURED.get(text.partition(":")[0], ())


def _by_features(kind: str, rest: str, open_encoder: OpenEncoder, folder: Path) -> list[Scorer]:
    """Open the scores that need vectors of images alone."""
    match kind:
        case "dino" | "dinov2":
            return [ImageSimilarity(_TITLES[kind], Features(open_dino(kind, rest), folder))]
        case "fid":
            features = Features(open_inception(rest), folder)
            return [FrechetDistance("FID", features), KernelDistance("KID", features)]
    encoder = _image_encoder(rest, open_encoder)
    features = Features(encoder, folder)
    return [Diversity(features) if kind == "diversity" else FrechetDistance("Fréchet distance", features)]


def _image_encoder(text: str, open_encoder: OpenEncoder) -> ImageEncoder:
    """Open an encoder that is named as the score by it."""
    kind, _, rest = text.partition(":")
    if kind in ("clip", "siglip") and rest:
        return open_encoder(rest)
    if kind in ("dino", "dinov2") and rest:
        return open_dino(kind, rest)
    raise _unknown(text)


def _required(model: BaseChatModel | None) -> BaseChatModel:
    if model is None:
        raise BadInput("gptscore needs a language model that sees images.", "Name a profile that has one.")
    return model


def _unknown(text: str) -> BadInput:
    return BadInput(f"{text!r} is no scorer.", accepted(FORMS))


def accepted(forms: Mapping[str, str]) -> str:
    """Return what may be written, one form a line."""
    return "\n".join(["Accepted:", *(f"  {form}: {what}" for form, what in forms.items())])
