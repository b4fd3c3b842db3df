"""Measure how often a retriever returns the image that a prompt describes: R@1, 5 and 10 on held-out scenes.

The scenes are of no training, every pair of species at most once, so that a single image fits a prompt. CLIP
is measured in three ways: by the mean over the same sub-queries that the adaptor gets, by both names in one
text, and by the whole prompt, which also states the relation and the place. Every image is scored under the
query's own sub-queries, never under its own. Not covered: captions in a person's own words, and species that
the encoder never saw.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.pocket.catalogue.captions import with_article
from pleinair.tools.pocket.catalogue.language.prompts import request_of, write_prompt
from pleinair.tools.pocket.catalogue.scenes import RELATIONS, Scene, Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import SPECIES, Species
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.retrieval.encoder import OpenClipEncoder
    from pleinair.tools.types import Cosines

ENCODER = "local-dir:pocket/catalogue/encoder"
FIRST = 700_000_000  # first index of the scenes
RANKS = (1, 5, 10)
ADAPTOR = "adaptor"
BAR = 1.5  # times CLIP's R@1
POOL = tuple(species for species in SPECIES if species.tier != "novel")


def held_out(count: int) -> list[Scene]:
    """Return `count` held-out scenes, no two of the same pair of species."""
    pairs = [(first, second) for place, first in enumerate(POOL) for second in POOL[:place]]
    if count > len(pairs):
        raise BadInput(f"count = {count}: there are only {len(pairs)} pairs of species.")
    sample = random.Random(FIRST).sample(pairs, count)
    rngs = [held_out_rng(FIRST + index) for index in range(count)]
    return [_scene(rng, rng.sample(pair, 2)) for rng, pair in zip(rngs, sample, strict=True)]


def _scene(rng: random.Random, pair: Sequence[Species]) -> Scene:
    return place_scene(rng, [Subject(species) for species in pair], [rng.choice(RELATIONS)])


def _names(scene: Scene) -> list[str]:
    return [subject.species.name for subject in scene.subjects]


def recalls(scores: Cosines) -> dict[int, float]:
    """Return R@k of scores [images, queries], where image j is right for query j; a tie counts as lost."""
    better = (scores >= scores.diagonal()).sum(axis=0) - 1
    return {k: float((better < k).mean()) for k in RANKS}


def means(cosines: Cosines, scenes: Sequence[Scene], names: Sequence[str]) -> Cosines:
    """Return S of every image for every scene's two names: [images, names] to [images, scenes]."""
    columns = [[names.index(name) for name in _names(scene)] for scene in scenes]
    mean: Cosines = cosines[:, columns].mean(axis=2)
    return mean


def _compare(folder: str, scenes: Sequence[Scene], encoder: OpenClipEncoder) -> dict[str, Cosines]:
    """Score every image for every scene's prompt in each way."""
    from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer

    images = {str(number): render(scene) for number, scene in enumerate(scenes)}
    names = sorted({name for scene in scenes for name in _names(scene)})
    requests = [request_of(scene, _names(scene), ("", "")) for scene in scenes]
    prompts = [write_prompt(random.Random(number), request) for number, request in enumerate(requests)]
    pairs = [" and ".join(map(with_article, _names(scene))) for scene in scenes]
    vectors = encoder.encode_images(list(images.values()))
    adapted = open_scorer(folder, encoder, images.__getitem__).score(names, list(images))
    return {
        "CLIP, sub-queries": means(vectors @ encoder.encode_text(names).T, scenes, names),
        "CLIP, both names": vectors @ encoder.encode_text(pairs).T,
        "CLIP, whole prompt": vectors @ encoder.encode_text(prompts).T,
        ADAPTOR: means(adapted, scenes, names),
    }


def lifts(recall: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Return the adaptor's R@1 over each of CLIP's."""
    firsts = {way: values[1] for way, values in recall.items()}
    adaptor = firsts.pop(ADAPTOR)
    return {way: adaptor / first if first else float("inf") for way, first in firsts.items()}


def wins_over_shuffled(scores: Cosines) -> float:
    """Return the share of prompts whose own image scores above another one's."""
    places = np.arange(len(scores))
    return float((scores.diagonal() > scores[np.roll(places, 1), places]).mean())


def _report(folder: str, count: int) -> str:
    from pleinair.tools.retrieval.encoder import OpenClipEncoder

    encoder = OpenClipEncoder(ENCODER)
    scores = _compare(folder, held_out(count), encoder)
    recall = {way: recalls(values) for way, values in scores.items()}
    lines = [f"{count} held-out scenes, {encoder.id}", f"{'':20} {'  '.join(f'R@{k:<3}' for k in RANKS)}"]
    lines += [f"{way:20} {'  '.join(f'{row[k]:.3f}' for k in RANKS)}" for way, row in recall.items()]
    ratios = ", ".join(f"{ratio:.2f} × {way}" for way, ratio in lifts(recall).items())
    lines.append(f"the adaptor's R@1 is {ratios} (bar {BAR})")
    lines.append(f"own image above a shuffled one: {wins_over_shuffled(scores[ADAPTOR]):.3f} of the prompts")
    return "\n".join(lines)


def main() -> None:
    """Measure an adaptor and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.experiments.adaptor", description=__doc__)
    parser.add_argument("folder", help="folder of the adaptor, such as pocket/catalogue/adaptor")
    parser.add_argument("--count", type=int, default=500, help="number of scenes (500)")
    options = parser.parse_args()
    print(_report(options.folder, options.count))


if __name__ == "__main__":
    main()
