"""Find the threshold of a library: the score that best separates a caption's own images from unrelated ones.

Each caption of a sample is retrieved. Its own images are those with that very caption; the best image whose
caption shares no word with it represents what is retrieved when a library lacks a concept; others are
ignored. Not covered: near misses, such as another species of finch, which need a higher threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pleinair.tools.retrieval.caption_index import words
from pleinair.tools.types import BadInput, Hit, Retriever, Value

_DEPTH = 1000  # hits of a caption; an own image behind them counts as not retrieved
_MISSED = -1.0
_LEAST_GAIN = 0.5  # recall minus false accepts under which a threshold decides little better than chance


class Calibration(Value):
    """Threshold with its effect on the sample."""

    threshold: float  # a cosine similarity, to three decimals; the best one, even if it does not separate
    captions: int  # in the sample
    recall: float  # share of captions with an image of their own on or over the threshold
    false_accepts: float  # share of captions with an unrelated image there
    separates: bool = True  # whether most captions find their own images there, and few an unrelated one


def calibrate(dense: Retriever, sample: int = 200) -> Calibration:
    """Choose the threshold of the largest `recall` minus `false_accepts`, in the middle of the gap below.

    Raise `BadInput` if the library has fewer than two different captions.
    """
    captions = list(dict.fromkeys(entry.captions[0] for entry in dense.entries() if entry.caption.strip()))
    if len(captions) < 2:
        raise BadInput(f"The library has {len(captions)} captions; a threshold needs 2 or more.")
    captions = captions[:: -(-len(captions) // sample)]
    pairs = [_best_scores(caption, dense.search(caption, _DEPTH)) for caption in captions]
    related, unrelated = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    best = max(related, key=lambda score: (_share(related, score) - _share(unrelated, score), -score))
    below = max((score for score in (*related, *unrelated) if score < best), default=best)
    threshold = math.floor((best + below) / 2 * 1000) / 1000
    recall, false_accepts = _share(related, threshold), _share(unrelated, threshold)
    return Calibration(
        threshold=threshold,
        captions=len(captions),
        recall=recall,
        false_accepts=false_accepts,
        separates=recall - false_accepts >= _LEAST_GAIN,
    )


def _best_scores(caption: str, hits: Sequence[Hit]) -> tuple[float, float]:
    """Return the best score with this caption, and the best with a caption of entirely other words.

    If no hit is unrelated, the last one's score replaces it, since an unrelated one's is no higher.
    """
    related = max((hit.score for hit in hits if caption in hit.captions), default=_MISSED)
    terms = set(words(caption))
    unrelated = [
        hit.score for hit in hits if caption not in hit.captions and terms.isdisjoint(words(hit.caption))
    ]
    return related, max(unrelated, default=hits[-1].score if len(hits) == _DEPTH else _MISSED)


def _share(scores: Sequence[float], threshold: float) -> float:
    return sum(score >= threshold for score in scores) / len(scores)
