"""Threshold relative to the query: a cosine for each query, from its own scores over a sample of the library.

Texts differ in the cosines they have with images that do not show them: a word that the encoder does not know
may score high with every image, and one flat threshold accepts the best of them. The threshold of a query is
therefore a margin plus a share of its mean cosine with the library, as speaker verification subtracts the
mean of impostors (Auckenthaler et al., 2000, zero normalisation). The share is small, since the mean is also
high for a concept that many images show: with half of mean and deviation such a concept was refused
(evals/LOG.md). The sample is stored, so that a query costs one product of some thousand rows whatever the
size of the library. A sample no longer stands for a library of which a tenth has changed, in images or in
captions: the threshold is then calibrated anew. Not covered: captions that only change their words;
`pleinair index --calibrate` calibrates by them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pleinair.tools.retrieval.catalogue import check_vector
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import QueryScores

if TYPE_CHECKING:
    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.types import Hit, Vectors

SAMPLE = 2048  # images
SHARE = 0.25  # of the mean cosine in the threshold; 0 is the flat threshold
FILE = "threshold.safetensors"
_VERSION = "2"  # increase it when a stored margin is meant for another formula
_CHANGED = 0.1  # share of the images or captions from which a threshold is calibrated anew


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
    return np.stack([dense.vector(entries[place].id) for place in _places(len(entries), size)])


def _places(count: int, size: int = SAMPLE) -> list[int]:
    return [int(place) for place in np.linspace(0, count - 1, min(size, count)).round()]


def save_threshold(index: Index, threshold: RelativeThreshold) -> None:
    """Write a threshold beside the index that its sample is of; raise `PleinairError` if the disk is full."""
    from safetensors.numpy import save

    catalogue = index.catalogue
    rows = catalogue.at(_places(len(index)))
    facts = {
        "version": _VERSION,
        "encoder": index.manifest.encoder,
        "margin": repr(threshold.margin),
        "images": str(len(index)),
        "captions": str(catalogue.facts["captions"]),
        "sample": json.dumps([rows[row][0] for row in sorted(rows)]),
    }
    data = save({"sample": np.ascontiguousarray(threshold.sample)}, facts)
    write_whole(index.folder / FILE, data)


def load_threshold(index: Index) -> RelativeThreshold | None:
    """Read the threshold beside an index; None if there is none that can be read and that stands for it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(index.folder / FILE, "np") as file:
            facts = file.metadata() or {}
            if (facts.get("version"), facts.get("encoder")) != (_VERSION, index.manifest.encoder):
                return None
            sample = file.get_tensor("sample")
            return RelativeThreshold(sample, float(facts["margin"])) if _is_of(index, facts, sample) else None
    except (OSError, SafetensorError, ValueError, KeyError):
        return None


def _is_of(index: Index, facts: dict[str, str], sample: Vectors) -> bool:
    """Return whether less than a tenth of the images and captions differ from when the sample was taken."""
    images, ids = int(facts["images"]), json.loads(facts["sample"])
    most = _CHANGED * images
    if abs(len(index) - images) >= most:
        return False
    if abs(index.catalogue.facts["captions"] - int(facts["captions"])) >= most:
        return False
    now = index.catalogue.checks(ids)
    pairs = zip(ids, sample, strict=True)
    lost = sum(now.get(id) != check_vector(vector) for id, vector in pairs)
    return lost < _CHANGED * len(ids)
