"""Measure how close images are to their prompts and to real images, as the three papers do.

`python -m pleinair.evals.experiments.similarity GENERATED REAL` compares two libraries; the text of an image
is its prompt, and its ground truth are the real images of the same text. CLIP and SigLIP are any open_clip
encoders but the retriever's, DINOv2 is a folder in transformers' format. The papers leave much open: ImageRAG
and RealRAG name no CLIP, and no paper the layers of a style loss. A Fréchet distance of few images is far too
large: compare equal numbers only, and one network. Not covered: Inception's weights, and GPTScore, for which
there is the ledger.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from pleinair.evals.metrics import interval, mean
from pleinair.evals.report import table
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from pleinair.tools.types import Encoder, Vectors

    Rows = NDArray[np.floating[Any]]
    Maps = Sequence[NDArray[np.float32]]  # feature maps of an image, each [channels, height, width]


class ImageEncoder(Protocol):
    """Model that embeds images; every `Encoder` is one."""

    @property
    def id(self) -> str:
        """Model and weights."""

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Return rows of length 1."""


class Dinov2:
    """DINOv2 (Oquab et al., 2023) in a local folder; an image is embedded as its class token."""

    def __init__(self, folder: str, batch: int = 32) -> None:
        """Open the model and its own preprocessing.

        Raises:
            BadInput: the folder contains no such model in safetensors.
        """
        from transformers import AutoImageProcessor, Dinov2Model

        try:
            self._prepare = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            self._model = Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise BadInput(f"{folder!r} is no DINOv2 folder: {str(error).splitlines()[0]}") from error
        self._model.eval()
        self._batch = batch
        self.id = f"dinov2:{Path(folder).name}"

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Embed images: float32 [n, dim], rows of length 1."""
        starts = range(0, len(images), self._batch)
        return np.concatenate([self._embed(images[start : start + self._batch]) for start in starts])

    def _embed(self, images: Sequence[Image]) -> Vectors:
        import torch

        pixels = self._prepare([image.convert("RGB") for image in images], return_tensors="pt")
        with torch.inference_mode():
            rows = self._model(**pixels).last_hidden_state[:, 0]
        vectors: Vectors = torch.nn.functional.normalize(rows.float(), dim=-1).numpy()
        return vectors


def require_other(judge: ImageEncoder, retriever: str) -> None:
    """Refuse the retrieval's own encoder as a judge: what it retrieves it also scores as similar."""
    if judge.id == retriever:
        raise BadInput(f"{judge.id} also did the retrieval: use another model, or other weights, as a judge.")


def to_prompts(judge: Encoder, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
    """Return each image's cosine to its prompt (CLIP-T; with SigLIP's weights the papers' SigLIP score)."""
    pairs = judge.encode_images(images) * judge.encode_text(prompts)
    return [float(cosine) for cosine in pairs.sum(axis=1)]


def to_truth(judge: ImageEncoder, images: Sequence[Image], truth: Sequence[Sequence[Image]]) -> list[float]:
    """Return each image's mean cosine to its own real images (CLIP-I, DINO)."""
    means = np.stack([judge.encode_images(real).mean(axis=0) for real in truth])
    return [float(cosine) for cosine in (judge.encode_images(images) * means).sum(axis=1)]


def recognised(judge: Encoder, images: Sequence[Image], prompts: Sequence[str]) -> list[bool]:
    """Return whether each image's prompt is the nearest of all (RealRAG's zero-shot accuracy)."""
    names = list(dict.fromkeys(prompts))
    nearest = (judge.encode_images(images) @ judge.encode_text(names).T).argmax(axis=1)
    return [names[place] == prompt for place, prompt in zip(nearest, prompts, strict=True)]


def frechet(generated: Rows, real: Rows) -> float:
    """Return the Fréchet distance of two sets of features [n, dim] (Heusel et al., 2017).

    |m - m'|² + tr(C + C' - 2 (C C')^½); with Inception's raw features it is FID. The root's trace is that of
    C^½ C' C^½, which is symmetric, so that fewer images than dimensions need no correction; they make the
    distance larger all the same.

    Raises:
        BadInput: a set has fewer than two images.
    """
    if min(len(generated), len(real)) < 2:
        raise BadInput(f"{len(generated)} and {len(real)} images: use at least 2 of each.")
    sets = [features.astype(np.float64) for features in (generated, real)]
    first, second = (np.atleast_2d(np.cov(features, rowvar=False)) for features in sets)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T  # negative values are rounding errors
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    apart = ((sets[0].mean(axis=0) - sets[1].mean(axis=0)) ** 2).sum()
    return max(float(apart + np.trace(first) + np.trace(second) - 2 * shared), 0.0)


def style_loss(generated: Maps, real: Maps) -> float:
    """Compare two images' Gram matrices (Gatys et al., 2016), with equal weights of the layers.

    A layer's part is the mean squared difference of G = F Fᵀ / positions. The caller chooses the network of
    the maps; figures of two networks cannot be compared.
    """
    pairs = zip(map(_gram, generated), map(_gram, real), strict=True)
    return float(np.mean([np.mean((first - second) ** 2) for first, second in pairs]))


def _gram(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the channels' products, averaged over positions: [channels, channels]."""
    flat = maps.reshape(len(maps), -1)
    return np.asarray(flat @ flat.T / flat.shape[1], dtype=np.float32)


def _compare(
    generated: Library, real: Library, encoders: Sequence[Encoder], others: Sequence[ImageEncoder]
) -> dict[str, Any]:
    """Return every score: values of single images, except for the distance of the two sets.

    Raises:
        BadInput: a generated image has no text, or no real image has the same.
    """
    items = generated.items.values()
    prompts, truth = [item.caption for item in items], [_truth(item.caption, real) for item in items]
    images = [generated.picture(item.id) for item in items]
    scores: dict[str, Any] = {}
    for encoder in encoders:
        scores[f"to the prompt, {encoder.id}"] = to_prompts(encoder, images, prompts)
        scores[f"prompt recognised, {encoder.id}"] = [*map(float, recognised(encoder, images, prompts))]
    pool = [real.picture(id) for id in real.items]
    for judge in (*encoders, *others):
        scores[f"to real images, {judge.id}"] = to_truth(judge, images, truth)
        scores[f"Fréchet distance, {judge.id}"] = frechet(*map(judge.encode_images, (images, pool)))
    return scores


def _truth(prompt: str, real: Library) -> list[Image]:
    ids = [id for id, item in real.items.items() if prompt and item.caption == prompt]
    if not ids:
        raise BadInput(f"{real.folder} has no image with the text {prompt!r}.")
    return [real.picture(id) for id in ids]


def _rows(scores: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    for name, values in scores.items():
        if isinstance(values, float):
            yield {"score": name, "mean": f"{values:.3f}", "95 % interval": "–", "n": "all"}
            continue
        low, high = interval(values, -1, 1) or (0.0, 0.0)
        ends = f"{low:.3f} to {high:.3f}"
        yield {"score": name, "mean": f"{mean(values):.3f}", "95 % interval": ends, "n": len(values)}


def _open_encoder(text: str, retriever: str) -> Encoder:
    """Open `MODEL` or `MODEL=WEIGHTS` of open_clip, perhaps with `@COMMIT`, unless it did the retrieval."""
    from pleinair.tools.retrieval.encoder import OpenClipEncoder

    name, _, commit = text.partition("@")
    model, _, weights = name.partition("=")
    encoder = OpenClipEncoder(model, weights, commit=commit)
    require_other(encoder, retriever)
    return encoder


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two folders; return 1 for an error the user can act on, else 0."""
    from pleinair.tools.retrieval.library import Library

    options = _read_options(arguments)
    try:
        encoders = [_open_encoder(text, options.retriever) for text in options.encoder]
        others = [Dinov2(folder) for folder in options.dinov2]
        scores = _compare(Library.open(options.generated), Library.open(options.real), encoders, others)
    except PleinairError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(table(_rows(scores))) + "\n")
    return 0


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pleinair.evals.experiments.similarity", description=__doc__
    )
    parser.add_argument("generated", type=Path, help="library of images, each with its prompt as text")
    parser.add_argument("real", type=Path, help="library of real images with the same texts")
    parser.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="MODEL[=WEIGHTS][@COMMIT]",
        help="an open_clip encoder: local-dir:FOLDER, or ViT-L-14=openai at a commit of the hub",
    )
    parser.add_argument("--dinov2", action="append", default=[], metavar="FOLDER", help="a DINOv2 folder")
    parser.add_argument("--retriever", "--looked-up-by", default="", metavar="ID", help="encoder to refuse")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
