"""Find thresholds for a library: what best separates a caption's own images from unrelated ones.

Each caption of a sample is retrieved. Its own images are those with that very caption, or with all words that
name the thing in it; the best image whose caption shares no word with it represents what is retrieved when a
library lacks a concept; others are ignored. So are images that look like a caption's own: many captions leave
out what their image shows. A threshold of flat cosines and one relative to the query are chosen in the same
way. Not covered: near misses, such as another species of finch, which need a higher threshold, and queries
that are worded unlike the captions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.retrieval.caption_index import core_words, words
from pleinair.tools.retrieval.threshold import (
    RelativeThreshold,
    load_threshold,
    sample_of,
    save_threshold,
)
from pleinair.tools.types import BadInput, Hit, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.retrieval.compose import Dense
    from pleinair.tools.retrieval.dense import IndexRetriever
    from pleinair.tools.retrieval.item import Item
    from pleinair.tools.types import Vectors

    Scores = NDArray[np.float64]  # one for each caption

CAPTIONS = 200  # in the sample
_DEPTH = 1000  # hits of a caption; an own image behind them counts as not retrieved
_MISSED = -1.0
_LEAST_GAIN = 0.5  # recall minus false accepts under which a threshold decides little better than chance
_LOST = 0.05  # share of captions with images of their own that may be taken for unknown
_COMPARED = 50  # of a caption's own images
_ALIKE = 0.25  # quantile of the cosines between a caption's own images, from which another is like them


class Rates(Value):
    """Threshold with its effect on the captions."""

    threshold: float  # to three decimals; the best one, even if it does not separate
    recall: float  # share of captions with an image of their own on or over the threshold
    false_accepts: float  # share of captions with an unrelated image there

    @property
    def gain(self) -> float:
        """Return `recall` minus `false_accepts`."""
        return self.recall - self.false_accepts

    @property
    def separates(self) -> bool:
        """Return whether most captions find their own images, and few an unrelated one."""
        return self.gain >= _LEAST_GAIN


class Calibration(Value):
    """Thresholds by the same captions."""

    captions: int
    flat: Rates  # a cosine
    relative: Rates  # its threshold is the margin of a `RelativeThreshold`


@dataclass(frozen=True)
class _Search:
    """Hits of one caption: its own images, and those that may be unrelated."""

    query: Vectors  # [1, dim]
    best: float  # score of its own
    own: list[str]  # ids of the best of them
    others: list[tuple[str, float]]  # of captions without a shared word, best first
    last: float  # score that replaces that of an unrelated image if none is among the hits


def calibrate(dense: Dense, sample: Vectors, captions: int = CAPTIONS) -> Calibration:
    """Choose the thresholds of up to `captions` captions; `sample` is that of the relative threshold.

    Each has the largest `recall` minus `false_accepts`, in the middle of the gap below, or is higher where
    it then loses no more than 5 % of the captions: that is the bound of split conformal prediction (Vovk et
    al., 2005), which needs no unrelated images and 19 captions. A caption counts once for each image that has
    it, so that a concept that much of the library shows is one that the threshold must accept. Raise
    `BadInput` if the library has fewer than two different captions.
    """
    queries, own, unrelated = scores_of(dense, captions)
    relative = RelativeThreshold(sample, 0.0)
    shares = np.array([relative.of(query).threshold for query in queries])
    return Calibration(
        captions=len(queries),
        flat=choose(own.tolist(), unrelated.tolist()),
        relative=choose((own - shares).tolist(), (unrelated - shares).tolist()),
    )


def scores_of(dense: Dense, captions: int = CAPTIONS) -> tuple[list[Vectors], Scores, Scores]:
    """Return the vectors of captions, [1, dim] each, and their best scores of own and of unrelated images.

    Raise `BadInput` as `calibrate` does.
    """
    require_captions(dense.entries())
    texts = [entry.captions[0] for entry in dense.entries() if entry.caption.strip()]
    texts = texts[:: -(-len(texts) // captions)]
    searches = {text: _search(dense, text) for text in dict.fromkeys(texts)}
    alike = _likeness(dense, searches.values())
    unrelated = {text: _unrelated(dense, search, alike) for text, search in searches.items()}
    return (
        [searches[text].query for text in texts],
        np.array([searches[text].best for text in texts]),
        np.array([unrelated[text] for text in texts]),
    )


def require_captions(entries: Iterable[Hit | Item], prefix: str = "") -> None:
    """Raise `BadInput` for fewer than two different captions; reads on only until there are two."""
    texts = set()
    for entry in entries:
        if entry.caption.strip():
            texts.add(entry.caption.splitlines()[0])
        if len(texts) > 1:
            return
    state = "all the same caption" if texts else "no captions"
    raise BadInput(
        f"{prefix}The library's images have {state}; a calibration needs two different captions.",
        "Set retrieval.threshold to a cosine, or add captions.",
    )


def open_threshold(dense: IndexRetriever) -> RelativeThreshold:
    """Return the relative threshold beside an index, after calibrating it where there is none that fits.

    Raise `BadInput` as `calibrate` does.
    """
    return load_threshold(dense.index) or store_threshold(dense)[1]


def store_threshold(dense: IndexRetriever) -> tuple[Calibration, RelativeThreshold]:
    """Calibrate the thresholds, and write the relative one beside the index; raise as `calibrate`."""
    sample = sample_of(dense)
    calibration = calibrate(dense, sample)
    threshold = RelativeThreshold(sample, calibration.relative.threshold)
    save_threshold(dense.index, threshold)
    return calibration, threshold


def choose(related: Sequence[float], unrelated: Sequence[float]) -> Rates:
    """Choose a threshold of scores, one of either kind for each caption, as `calibrate` describes."""
    best = max(set(related), key=lambda score: (_share(related, score) - _share(unrelated, score), -score))
    below = max((score for score in (*related, *unrelated) if score < best), default=best)
    lost = int(_LOST * (len(related) + 1))
    bound = sorted(related)[lost - 1] if lost else -math.inf
    threshold = math.floor(max((best + below) / 2, bound) * 1000) / 1000
    return Rates(
        threshold=threshold, recall=_share(related, threshold), false_accepts=_share(unrelated, threshold)
    )


def _search(dense: Dense, caption: str) -> _Search:
    hits, terms, core = dense.search(caption, _DEPTH), _words(caption), set(core_words(caption))
    own = [hit for hit in hits if caption in hit.captions or _names(hit, core)]
    return _Search(
        query=dense.embed([caption]),
        best=own[0].score if own else _MISSED,
        own=[hit.id for hit in own[:_COMPARED]],
        others=[(hit.id, hit.score) for hit in hits if terms.isdisjoint(_words(hit.caption))],
        last=hits[-1].score if len(hits) == _DEPTH else _MISSED,
    )


def _names(hit: Hit, core: set[str]) -> bool:
    return bool(core) and any(core <= _words(line) for line in hit.captions)


@lru_cache(maxsize=100_000)
def _words(text: str) -> frozenset[str]:
    return frozenset(words(text))


def _likeness(dense: Dense, searches: Iterable[_Search]) -> float:
    """Return the cosine from which an image is like a caption's own; infinite if none has two of them."""
    quantiles = []
    for each in searches:
        if len(each.own) > 1:
            vectors = np.stack([dense.vector(id) for id in each.own])
            pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
            quantiles.append(float(np.quantile(pairs, _ALIKE)))
    return median(quantiles) if quantiles else math.inf


def _unrelated(dense: Dense, search: _Search, alike: float) -> float:
    """Return the best score of an image that is neither the caption's own nor like those.

    If no hit is unrelated, the last one's score replaces it, since an unrelated one's is no higher.
    """
    own = np.stack([dense.vector(id) for id in search.own]) if search.own else None
    for id, score in search.others:
        if own is None or float((own @ dense.vector(id)).max()) < alike:
            return score
    return search.last


def _share(scores: Sequence[float], threshold: float) -> float:
    return sum(score >= threshold for score in scores) / len(scores)
