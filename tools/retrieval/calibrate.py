"""Find the threshold of a library: the score that best tells a caption's own pictures from strangers.

Each caption of a sample is looked up. Its own pictures are those with that very caption; the best picture
whose caption shares no word with it stands for what is found when a library lacks a thing, and what shares
some is neither. Not covered: near misses, such as another species of finch, which need a higher threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pleinair.tools.retrieval.lexical import words
from pleinair.tools.types import BadInput, Hit, Retriever, Value

SAMPLE = 200  # captions looked up
LOOKED_AT = 1000  # hits of a caption; its own picture behind them counts as not found
UNSEEN = -1.0


class Calibration(Value):
    """Give a threshold with what it would do to the sample."""

    threshold: float  # a cosine similarity, to three decimals
    captions: int  # in the sample
    kept: float  # share of captions with a picture of their own on or over the threshold
    let_in: float  # share of captions with a stranger there


def calibrate(dense: Retriever, sample: int = SAMPLE) -> Calibration:
    """Choose the threshold with the largest `kept` minus `let_in`, in the middle of the gap below it.

    Raise `BadInput` when fewer than two different captions are in the library.
    """
    captions = list(dict.fromkeys(entry.caption for entry in dense.entries() if entry.caption.strip()))
    if len(captions) < 2:
        raise BadInput(
            f"A threshold is found from captions; the library has {len(captions)}, wanted 2 or more."
        )
    chosen = captions[:: -(-len(captions) // sample)]
    pairs = [_apart(caption, dense.search(caption, LOOKED_AT)) for caption in chosen]
    own, others = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    best = max(own, key=lambda threshold: (_share(own, threshold) - _share(others, threshold), -threshold))
    below = max((score for score in (*own, *others) if score < best), default=best)
    threshold = math.floor((best + below) / 2 * 1000) / 1000
    return Calibration(
        threshold=threshold,
        captions=len(chosen),
        kept=_share(own, threshold),
        let_in=_share(others, threshold),
    )


def _apart(caption: str, hits: Sequence[Hit]) -> tuple[float, float]:
    """Give the best score with this caption and the best with a caption of wholly other words.

    Where no hit is a stranger the last one's score stands for it, since a stranger's is no higher.
    """
    own = max((hit.score for hit in hits if hit.caption == caption), default=UNSEEN)
    mine = set(words(caption))
    strangers = [hit.score for hit in hits if hit.caption != caption and mine.isdisjoint(words(hit.caption))]
    return own, max(strangers, default=hits[-1].score if len(hits) == LOOKED_AT else UNSEEN)


def _share(scores: Sequence[float], threshold: float) -> float:
    return sum(score >= threshold for score in scores) / len(scores)
