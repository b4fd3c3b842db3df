"""Judge by the oracle which marks of a species an image shows: a crest, bars, spots, the form of a tail.

The oracle has no class for a mark, but its features do: for each mark of a species a linear probe is fitted
that separates renders of the species from renders of its twin, which has the kind's default in place of the
mark and is otherwise the same scene, and from renders of other species without the mark, half of them of the
kind. A probe counts if it is right on at least `LEAST_RIGHT` of held-out renders of species and twin.
Covered: single subjects of usual size, which stand in the middle of an image, in all places, lights and
weathers. Not covered: colours. What probes answer by chance is to be measured on images of other species.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from pleinair.evals.pocket.oracle import Oracle
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import Scene, Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import KINDS, SPECIES, Species

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Vector = NDArray[np.float64]
    Features = NDArray[np.float64]  # [images, features]
    Probe = tuple[Vector, float]  # weights, and the threshold above which the mark is shown

LEAST_RIGHT = 0.97  # share of held-out renders
SAMPLES, HELD_OUT = 80, 40  # scenes, of each two renders
_RIDGE = 0.01  # of the mean squared length of the features


class MarkProbes:
    """Probes of marks, fitted when they are first needed; a species takes some ten seconds."""

    def __init__(self, oracle: Oracle, samples: int = SAMPLES, held_out: int = HELD_OUT) -> None:
        self._oracle, self._samples, self._number = oracle, samples, samples + held_out
        self._probes: dict[str, dict[str, Probe | None]] = {}
        self._pools: dict[str, list[tuple[Species, Vector]]] = {}

    def marks(self, image: Image, species: Species) -> dict[str, bool | None]:
        """Return for each mark of the species whether the image shows it, None if no probe can tell."""
        features = self._features(image)
        return {
            mark: None if probe is None else bool(features @ probe[0] > probe[1])
            for mark, probe in self._fitted(species).items()
        }

    def _fitted(self, species: Species) -> dict[str, Probe | None]:
        if species.name not in self._probes:
            scenes = [_scene(f"{species.name}/{number}", species) for number in range(self._number)]
            marked = self._render(scenes, species)
            self._probes[species.name] = {
                mark: self._fit(
                    marked, self._render(scenes, twin(species, mark)), self._without(species, mark)
                )
                for mark in species.marks
            }
        return self._probes[species.name]

    def _without(self, species: Species, mark: str) -> Features:
        """Return the features of renders of other species without a mark."""
        pool = self._pool(species.kind)
        return np.stack([row for other, row in pool if other.looks.get(mark) != species.looks[mark]])

    def _pool(self, kind: str) -> list[tuple[Species, Vector]]:
        """Return renders of random species, half of them of a kind, as features."""
        if kind not in self._pools:
            rng = random.Random(f"marks/{kind}")
            of_kind = [species for species in SPECIES if species.kind == kind]
            chosen = [rng.choice((SPECIES, of_kind)[n % 2]) for n in range(self._samples)]
            images = [render(_scene(f"{kind}/{n}", species)) for n, species in enumerate(chosen)]
            self._pools[kind] = [
                (species, self._features(image)) for species, image in zip(chosen, images, strict=True)
            ]
        return self._pools[kind]

    def _fit(self, marked: Features, unmarked: Features, others: Features) -> Probe | None:
        """Return weights and threshold of a ridge regression, None if it fails on held-out renders."""
        rows = np.concatenate([marked[: self._samples], unmarked[: self._samples], others])
        centre = rows.mean(0)
        centred = rows - centre
        gram = centred @ centred.T
        ridge = _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        labels = np.where(np.arange(len(rows)) < self._samples, 1.0, -1.0)
        weights = centred.T @ np.linalg.solve(gram + ridge, labels - labels.mean())
        threshold = float(centre @ weights - labels.mean())
        right = [*(marked[self._samples :] @ weights > threshold)]
        right += [*(unmarked[self._samples :] @ weights <= threshold)]
        return (weights, threshold) if np.mean(right) >= LEAST_RIGHT else None

    def _render(self, scenes: Sequence[Scene], species: Species) -> Features:
        return np.stack([self._features(image) for image in _renders(scenes, species)])

    def _features(self, image: Image) -> Vector:
        """Return the oracle's second and third layers, the second at half its resolution, as one vector."""
        _, second, third, _ = self._oracle.maps(image)
        channels, height, width = second.shape
        halved = second.reshape(channels, height // 2, 2, width // 2, 2).mean((2, 4))
        return np.concatenate([layer.ravel() / np.sqrt(len(layer)) for layer in (halved, third)])


def twin(species: Species, mark: str) -> Species:
    """Return the species with the kind's default in place of a mark."""
    looks = {**species.looks, mark: KINDS[species.kind].marks[mark][0]}
    return replace(species, looks=MappingProxyType(looks))


def _scene(name: str, species: Species) -> Scene:
    """Place one of the species in the middle of random surroundings."""
    rng = random.Random(f"marks/{name}")
    around = draw_scene(rng, [species])
    return place_scene(
        rng, [Subject(species)], background=around.background, light=around.light, weather=around.weather
    )


def _renders(scenes: Sequence[Scene], species: Species) -> Iterator[Image]:
    for scene in scenes:
        figures = tuple(replace(figure, species=species) for figure in scene.figures)
        yield render(replace(scene, figures=figures))
