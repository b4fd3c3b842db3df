"""Threshold relative to the query: a cosine for each query, from its own scores over a sample of the library.

Texts differ in the cosines they have with images that do not show them: a word that the encoder does not know
may score high with every image, and one flat threshold accepts the best of them. The threshold of a query is
therefore a margin plus a share of its mean cosine with the library, as speaker verification subtracts the
mean of impostors (Auckenthaler et al., 2000, zero normalisation). The share is small, since the mean is also
high for a concept that many images show: with half of mean and deviation such a concept was refused
(evals/LOG.md). The sample is stored, so that a query costs one product of some thousand rows whatever the
size of the library. Not covered: a library that changes so much that the sample no longer stands for it;
`pleinair index --calibrate` draws it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import QueryScores

if TYPE_CHECKING:
    from pleinair.tools.types import Hit, Vectors

SAMPLE = 2048  # images
SHARE = 0.25  # of the mean cosine in the threshold; 0 is the flat threshold
_FILE = "threshold.safetensors"
_VERSION = "1"  # increase it when a stored margin is meant for another formula


class _Vectored(Protocol):
    def entries(self) -> Sequence[Hit]:
        """List the images."""

    def vector(self, id: str) -> Vectors:
        """Return an image's vector."""


class RelativeThreshold:
    """Threshold of each query of one library and encoder.

    Args:
        sample: vectors of images of the library, float32 [n, dim], rows of length 1, n of 1 or more.
        margin: by which a hit's cosine has to exceed the share of the mean one, -2 to 2.
    """

    def __init__(self, sample: Vectors, margin: float) -> None:
        self.sample, self.margin = sample, margin

    def of(self, query: Vectors) -> QueryScores:
        """Return the threshold of a query, float32 [1, dim], and what it follows from."""
        mean = float((self.sample @ query[0]).mean())
        threshold = self.margin + SHARE * mean
        return QueryScores(threshold=threshold, mean=mean, margin=self.margin, sample=len(self.sample))


def sample_of(dense: _Vectored, size: int = SAMPLE) -> Vectors:
    """Return the vectors of up to `size` images, evenly from the library's order, float32 [n, dim]."""
    entries = dense.entries()
    places = np.linspace(0, len(entries) - 1, min(size, len(entries))).round().astype(int)
    return np.stack([dense.vector(entries[place].id) for place in places])


def save_threshold(folder: Path, encoder: str, threshold: RelativeThreshold) -> None:
    """Write a threshold beside an index; raise `PleinairError` if the disk is full."""
    from safetensors.numpy import save

    facts = {"version": _VERSION, "encoder": encoder, "margin": repr(threshold.margin)}
    write_whole(folder / _FILE, save({"sample": np.ascontiguousarray(threshold.sample)}, facts))


def load_threshold(folder: Path, encoder: str) -> RelativeThreshold | None:
    """Read the threshold beside an index; None if there is none of this encoder that can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / _FILE, "np") as file:
            facts = file.metadata() or {}
            if (facts.get("version"), facts.get("encoder")) != (_VERSION, encoder):
                return None
            return RelativeThreshold(file.get_tensor("sample"), float(facts["margin"]))
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
