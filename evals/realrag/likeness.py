"""Compare drawn pictures with real ones of their species: RealRAG's similarity scores in the miniature world.

CLIP-T and CLIP-I are by the frozen encoder, which also did the look-up; there is no second one. Looks, style
and the Fréchet distance are by the oracle's layers, which no tool ever sees. They stand where the papers have
DINO, a style loss and FID, and are none of them: the oracle was trained on this world's species.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pleinair.evals.experiments.similarity import frechet, style_loss
from pleinair.evals.realrag.library import names_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.evals.experiments.similarity import Maps
    from pleinair.evals.pocket.oracle import Oracle
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.types import Encoder, Vectors


class Truth:
    """Hold real pictures of every species, as encoder and oracle see them."""

    def __init__(self, library: Library, encoder: Encoder, oracle: Oracle) -> None:
        self._encoder, self._oracle = encoder, oracle
        images = [library.picture(id) for id in library.items]
        self._names = np.asarray(names_of(library, list(library.items)))
        self._embedded = encoder.encode_images(images)
        self._maps = [oracle.maps(image) for image in images]
        self._features = np.stack([features(maps) for maps in self._maps])

    def likeness(self, image: Image, name: str, prompt: str) -> dict[str, float]:
        """Compare a picture with its prompt, and with the real ones of its species: means over those."""
        mine = np.flatnonzero(self._names == name)
        (vector,), (text,) = self._encoder.encode_images([image]), self._encoder.encode_text([prompt])
        maps = self._oracle.maps(image)
        return {
            "CLIP-T": float(vector @ text),
            "CLIP-I": float((self._embedded[mine] @ vector).mean()),
            "looks": float((self._features[mine] @ features(maps)).mean()),
            "style loss": float(np.mean([style_loss(maps, self._maps[one]) for one in mine])),
        }

    def distances(self, drawn: Mapping[str, Vectors], names: Sequence[str]) -> dict[str, float]:
        """Give each column's Fréchet distance to the real pictures of these species."""
        real = self._features[np.isin(self._names, names)]
        return {column: frechet(rows, real) for column, rows in drawn.items()}


def features(maps: Maps) -> Vectors:
    """Average the last layer over positions: [channels], of length 1."""
    mean = maps[-1].mean(axis=(1, 2))
    found: Vectors = mean / np.linalg.norm(mean)
    return found


def real_like(library: Library, oracle: Oracle, wanted: Sequence[str]) -> Vectors:
    """Take as many other real pictures of the same species: what a perfect generator's distance would be."""
    ids = list(library.items)
    found = names_of(library, ids)
    taken = []
    for place, name in enumerate(wanted):
        mine = [id for id, one in zip(ids, found, strict=True) if one == name]
        taken.append(library.picture(mine[wanted[:place].count(name) % len(mine)]))
    return np.stack([features(oracle.maps(image)) for image in taken])
