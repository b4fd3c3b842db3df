"""Judge by the oracle which marks of a species an image shows: a crest, bars, spots, the form of a tail.

The oracle has no class for a mark, but its features do: for each mark of a species a linear probe is fitted
that separates renders of the species from renders of its twin, which has the kind's default in place of the
mark and is otherwise the same scene. A probe counts if it is right on at least `LEAST_RIGHT` of held-out
renders. Covered: single subjects of usual size, which stand in the middle of an image, in all places, lights
and weathers. Not covered: colours; a mark that another image of the species shows by chance in another form.
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
from pleinair.tools.pocket.catalogue.species import KINDS, Species

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Vector = NDArray[np.float64]
    Features = NDArray[np.float64]  # [images, features]

LEAST_RIGHT = 0.97  # share of held-out renders
SAMPLES, HELD_OUT = 80, 40  # scenes, of each two renders
_RIDGE = 0.01  # of the mean squared length of the features


class MarkProbes:
    """Probes of marks, fitted when they are first needed; a species takes some ten seconds."""

    def __init__(self, oracle: Oracle, samples: int = SAMPLES, held_out: int = HELD_OUT) -> None:
        self._oracle, self._samples, self._held_out = oracle, samples, held_out
        self._probes: dict[str, dict[str, tuple[Vector, float] | None]] = {}

    def marks(self, image: Image, species: Species) -> dict[str, bool | None]:
        """Return for each mark of the species whether the image shows it, None if no probe can tell."""
        features = self._features(image)
        return {
            mark: None if probe is None else bool(features @ probe[0] > probe[1])
            for mark, probe in self._fitted(species).items()
        }

    def _fitted(self, species: Species) -> dict[str, tuple[Vector, float] | None]:
        if species.name not in self._probes:
            scenes = [_scene(number, species) for number in range(self._samples + self._held_out)]
            marked = self._render(scenes, species)
            self._probes[species.name] = {
                mark: self._fit(marked, self._render(scenes, twin(species, mark))) for mark in species.marks
            }
        return self._probes[species.name]

    def _fit(self, marked: Features, unmarked: Features) -> tuple[Vector, float] | None:
        """Return weights and threshold of a ridge regression, None if it fails on held-out renders."""
        rows = np.concatenate([marked[: self._samples], unmarked[: self._samples]])
        centre = rows.mean(0)
        centred = rows - centre
        gram = centred @ centred.T
        ridge = _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        labels = np.repeat([1.0, -1.0], self._samples)
        weights = centred.T @ np.linalg.solve(gram + ridge, labels)
        threshold = float(centre @ weights)
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


def _scene(number: int, species: Species) -> Scene:
    """Place one of the species in the middle of random surroundings."""
    rng = random.Random(f"marks/{species.name}/{number}")
    around = draw_scene(rng, [species])
    return place_scene(
        rng, [Subject(species)], background=around.background, light=around.light, weather=around.weather
    )


def _renders(scenes: Sequence[Scene], species: Species) -> Iterator[Image]:
    for scene in scenes:
        figures = tuple(replace(figure, species=species) for figure in scene.figures)
        yield render(replace(scene, figures=figures))
