"""Measure how close images are to their prompts and to real images, as the three papers do.

`python -m pleinair.evals.experiments.similarity DRAWN REAL` compares two libraries; the text of a generated
image is its prompt, and its ground truth are the real images of the same text. CLIP and SigLIP are any
open_clip encoders but the retriever's, DINOv2 is a folder in transformers' format. The papers leave much
open: ImageRAG and RealRAG name no CLIP, and no paper the layers of a style loss. A Fréchet distance of few
images is far too large: compare equal numbers only, and one network. Not covered: Inception's weights, and
GPTScore, for which there is the ledger.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pleinair.evals import metrics
from pleinair.evals.report import row, table_head
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.types import Encoder, Vectors

    Rows = NDArray[np.floating[Any]]
    Maps = Sequence[
        NDArray[np.float32]
    ]  # a network's feature maps of a picture, each [channels, height, width]


class Eye(Protocol):
    """Embed pictures; every `Encoder` does."""

    @property
    def id(self) -> str:
        """Name the model and its weights."""
        ...

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Give rows of length 1."""
        ...


class Dinov2:
    """Embed pictures with a DINOv2 (Oquab et al., 2023) in a local folder, by its class token."""

    def __init__(self, folder: str, batch: int = 32) -> None:
        """Open the model and its own preprocessing.

        Raises:
            BadInput: the folder holds no such model in safetensors.
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
        """Embed pictures: float32 [n, dim], rows of length 1."""
        starts = range(0, len(images), self._batch)
        return np.concatenate([self._embed(images[start : start + self._batch]) for start in starts])

    def _embed(self, images: Sequence[Image]) -> Vectors:
        import torch

        pixels = self._prepare([image.convert("RGB") for image in images], return_tensors="pt")
        with torch.inference_mode():
            rows = self._model(**pixels).last_hidden_state[:, 0]
        found: Vectors = torch.nn.functional.normalize(rows.float(), dim=-1).numpy()
        return found


def require_other(judge: Eye, looked_up_by: str) -> None:
    """Refuse the look-up's own encoder as a judge: what it finds near it also calls alike."""
    if judge.id == looked_up_by:
        raise BadInput(f"{judge.id} also did the look-up: take another model, or other weights, as a judge.")


def to_prompts(judge: Encoder, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
    """Give each picture's cosine to its prompt (CLIP-T; with SigLIP's weights the papers' SigLIP score)."""
    pairs = judge.encode_images(images) * judge.encode_text(prompts)
    return [float(one) for one in pairs.sum(axis=1)]


def to_truth(judge: Eye, images: Sequence[Image], truth: Sequence[Sequence[Image]]) -> list[float]:
    """Give each picture's mean cosine to its own real pictures (CLIP-I, DINO)."""
    means = [judge.encode_images(real).mean(axis=0) for real in truth]
    return [float(one) for one in (judge.encode_images(images) * np.stack(means)).sum(axis=1)]


def recognised(judge: Encoder, images: Sequence[Image], prompts: Sequence[str]) -> list[bool]:
    """Tell of each picture whether its own prompt is the nearest of all (RealRAG's zero-shot accuracy)."""
    names = list(dict.fromkeys(prompts))
    nearest = (judge.encode_images(images) @ judge.encode_text(names).T).argmax(axis=1)
    return [names[place] == prompt for place, prompt in zip(nearest, prompts, strict=True)]


def frechet(ours: Rows, real: Rows) -> float:
    """Give the Fréchet distance of two sets of features [n, dim] (Heusel et al., 2017).

    |m - m'|² + tr(C + C' - 2 (C C')^½); with Inception's raw features it is FID. The root's trace is that of
    C^½ C' C^½, which is symmetric, so that fewer pictures than dimensions need no correction; they make the
    distance larger all the same.

    Raises:
        BadInput: a set has fewer than two pictures.
    """
    if min(len(ours), len(real)) < 2:
        raise BadInput(f"{len(ours)} and {len(real)} pictures: wanted at least 2 of each.")
    one, other = ours.astype(np.float64), real.astype(np.float64)
    first, second = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (one, other))
    root = _root(first)
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    apart = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum()
    return max(float(apart + np.trace(first) + np.trace(second) - 2 * shared), 0.0)


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the symmetric root; what is negative by rounding counts as none."""
    values, vectors = np.linalg.eigh(covariance)
    found: NDArray[np.float64] = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return found


def style_loss(ours: Maps, real: Maps) -> float:
    """Compare two pictures' Gram matrices (Gatys et al., 2016), the layers weighed alike.

    A layer's part is the mean squared difference of G = F Fᵀ / positions. Which network gives the maps is the
    caller's choice; figures of two networks cannot be compared.
    """
    layers = zip(ours, real, strict=True)
    return float(np.mean([np.mean((_gram(one) - _gram(other)) ** 2) for one, other in layers]))


def _gram(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the channels' products, averaged over positions: [channels, channels]."""
    flat = maps.reshape(len(maps), -1)
    return np.asarray(flat @ flat.T / flat.shape[1], dtype=np.float32)


def _compare(
    drawn: Library, real: Library, encoders: Sequence[Encoder], eyes: Sequence[Eye]
) -> Mapping[str, Any]:
    """Give every score: values of single pictures, but for the distance of the two sets.

    Raises:
        BadInput: a drawn picture has no text, or no real picture has the same.
    """
    items = list(drawn.items.values())
    prompts, truth = [one.caption for one in items], [_truth_of(one.caption, real) for one in items]
    images = [drawn.picture(one.id) for one in items]
    found: dict[str, Any] = {}
    for encoder in encoders:
        found[f"to the prompt, {encoder.id}"] = to_prompts(encoder, images, prompts)
        found[f"prompt recognised, {encoder.id}"] = [*map(float, recognised(encoder, images, prompts))]
    pool = [real.picture(id) for id in real.items]
    for eye in (*encoders, *eyes):
        found[f"to real pictures, {eye.id}"] = to_truth(eye, images, truth)
        found[f"Fréchet distance, {eye.id}"] = frechet(eye.encode_images(images), eye.encode_images(pool))
    return found


def _truth_of(prompt: str, real: Library) -> list[Image]:
    """Open the real pictures whose text is the prompt."""
    same = [id for id, one in real.items.items() if prompt and one.caption == prompt]
    if not same:
        raise BadInput(f"{real.folder} has no picture with the text {prompt!r}.")
    return [real.picture(id) for id in same]


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Write the scores as a table."""
    yield from table_head("score", "mean", "95 % interval", "n")
    for name, values in found.items():
        if isinstance(values, float):
            yield row(name, f"{values:.3f}", "–", "all")
            continue
        low, high = metrics.interval(values, -1, 1) or (0.0, 0.0)
        yield row(name, f"{metrics.mean(values):.3f}", f"{low:.3f} to {high:.3f}", len(values))


def _open_encoder(text: str, looked_up_by: str) -> Encoder:
    """Open `MODEL` or `MODEL=WEIGHTS` of open_clip, perhaps with `@COMMIT`, unless it did the look-up."""
    from pleinair.tools.retrieval.encoder import OpenClipEncoder

    named, _, commit = text.partition("@")
    model, _, weights = named.partition("=")
    encoder = OpenClipEncoder(model, weights, commit=commit)
    require_other(encoder, looked_up_by)
    return encoder


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two folders; 1 where the user has to act, 0 otherwise."""
    from pleinair.tools.retrieval.library import Library

    options = _read_options(arguments)
    try:
        encoders = [_open_encoder(text, options.looked_up_by) for text in options.encoder]
        eyes = [Dinov2(folder) for folder in options.dinov2]
        found = _compare(Library.open(options.drawn), Library.open(options.real), encoders, eyes)
    except PleinairError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(_lines(found)) + "\n")
    return 0


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pleinair.evals.experiments.similarity", description=__doc__
    )
    parser.add_argument("drawn", type=Path, help="a library: pictures, each with its prompt as text")
    parser.add_argument("real", type=Path, help="a library of real pictures with the same texts")
    parser.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="MODEL[=WEIGHTS][@COMMIT]",
        help="of open_clip: local-dir:FOLDER, or ViT-L-14=openai at a commit of its page on the hub",
    )
    parser.add_argument(
        "--dinov2", action="append", default=[], metavar="FOLDER", help="in transformers' format"
    )
    parser.add_argument(
        "--looked-up-by", default="", metavar="ID", help="encoder that did the look-up; refused here"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
