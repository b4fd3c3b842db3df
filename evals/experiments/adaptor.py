"""How often a retriever finds the very picture that a prompt describes: R@1, 5 and 10 on held-out scenes.

`scenes FOLDER` writes pictures of two species with captions, to train on; `recall FOLDER` measures an adaptor
on scenes that no training has seen, every pair of species once, so that one picture alone fits a prompt. CLIP
is measured in three ways: by the mean over the same sub-queries that the adaptor gets, by both names in one
text, and by the whole prompt, which also tells the relation and the place. Every picture is scored under the
query's own sub-queries, never under its own. Not covered: captions of a person's own words, and species that
the encoder never saw.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.pocket.prompts import RELATIONS, caption, request_for, with_article, write_prompt
from pleinair.tools.pocket.world import (
    SPECIES,
    Scene,
    Species,
    held_out_rng,
    random_scene,
    render,
    training_rng,
)
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.retrieval.encoder import OpenClipEncoder
    from pleinair.tools.types import Cosines

ENCODER = "local-dir:pocket/encoder"
FIRST = 700_000_000  # of the scenes' indices, training and held-out ones alike
RANKS = (1, 5, 10)
ADAPTOR = "adaptor"
BAR = 1.5  # times CLIP's R@1
TAUGHT = tuple(species for species in SPECIES if species.tier != "novel")


def write_scenes(folder: Path, count: int) -> None:
    """Write `count` training pictures of two species, named in captions, as a library.

    Raises:
        BadInput: the folder exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} exists and is not empty.")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        rng = training_rng(FIRST + index)
        scene = _draw(rng, rng.sample(TAUGHT, 2))
        render(scene).save(folder / f"{index:05d}.png")
        lines.append(json.dumps({"file_name": f"{index:05d}.png", "text": caption(rng, scene, named=True)}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def held_out(count: int) -> list[Scene]:
    """Draw `count` held-out scenes, no two of the same pair of species."""
    pairs = [(one, other) for place, one in enumerate(TAUGHT) for other in TAUGHT[:place]]
    if count > len(pairs):
        raise BadInput(f"There are {len(pairs)} pairs of species, wanted {count}.")
    chosen = random.Random(FIRST).sample(pairs, count)
    rngs = [held_out_rng(FIRST + index) for index in range(count)]
    return [_draw(rng, rng.sample(pair, 2)) for rng, pair in zip(rngs, chosen, strict=True)]


def _draw(rng: random.Random, pair: Sequence[Species]) -> Scene:
    """Place a pair."""
    return random_scene(rng, pair, relation=rng.choice(RELATIONS))


def recalls(scores: Cosines) -> dict[int, float]:
    """Give R@k of scores [pictures, queries], where query j wants picture j; a tie counts as lost."""
    own = scores.diagonal()
    better = (scores >= own).sum(axis=0) - 1
    return {k: float((better < k).mean()) for k in RANKS}


def means(cosines: Cosines, scenes: Sequence[Scene], names: Sequence[str]) -> Cosines:
    """Give S of every picture for every scene's two names: [pictures, names] to [pictures, scenes]."""
    columns = [[names.index(one.species.name) for one in scene.subjects] for scene in scenes]
    mean: Cosines = cosines[:, columns].mean(axis=2)
    return mean


def _compare(folder: str, scenes: Sequence[Scene], encoder: OpenClipEncoder) -> dict[str, Cosines]:
    """Score every picture for every scene's prompt, by each way."""
    from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer

    pictures = {str(number): render(scene) for number, scene in enumerate(scenes)}
    names = sorted({one.species.name for scene in scenes for one in scene.subjects})
    asked = [request_for(scene) for scene in scenes]
    prompts = [write_prompt(random.Random(number), one) for number, one in enumerate(asked)]
    pairs = [" and ".join(map(with_article, one.subjects)) for one in asked]
    seen = encoder.encode_images(list(pictures.values()))
    adapted = open_scorer(folder, encoder, pictures.__getitem__).score(names, list(pictures))
    return {
        "CLIP, sub-queries": means(seen @ encoder.encode_text(names).T, scenes, names),
        "CLIP, both names": seen @ encoder.encode_text(pairs).T,
        "CLIP, whole prompt": seen @ encoder.encode_text(prompts).T,
        ADAPTOR: means(adapted, scenes, names),
    }


def lifts(found: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Give the adaptor's R@1 over each of CLIP's."""
    own = found[ADAPTOR][1]
    return {way: own / one[1] if one[1] else float("inf") for way, one in found.items() if way != ADAPTOR}


def shuffled_wins(scores: NDArray[np.float32]) -> float:
    """Give the share of prompts whose own picture scores above another one, taken at random."""
    others = np.roll(np.arange(len(scores)), 1)
    return float((scores.diagonal() > scores[others, np.arange(len(scores))]).mean())


def _report(folder: str, count: int) -> str:
    """Measure and put the figures into a table."""
    from pleinair.tools.retrieval.encoder import OpenClipEncoder

    encoder = OpenClipEncoder(ENCODER)
    scores = _compare(folder, held_out(count), encoder)
    found = {way: recalls(one) for way, one in scores.items()}
    lines = [f"{count} held-out scenes, {encoder.id}", f"{'':20} {'  '.join(f'R@{k:<3}' for k in RANKS)}"]
    lines += [f"{way:20} {'  '.join(f'{one[k]:.3f}' for k in RANKS)}" for way, one in found.items()]
    times = ", ".join(f"{times:.2f} × {way}" for way, times in lifts(found).items())
    lines.append(f"the adaptor's R@1 is {times} (bar {BAR})")
    lines.append(f"own picture above a shuffled one: {shuffled_wins(scores[ADAPTOR]):.3f} of the prompts")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write scenes or measure, as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.experiments.adaptor", description=__doc__)
    parser.add_argument("what", choices=("scenes", "recall"))
    parser.add_argument("folder", help="for the scenes, or of the adaptor")
    parser.add_argument("--count", type=int, default=500, help="scenes")
    options = parser.parse_args()
    if options.what == "scenes":
        write_scenes(Path(options.folder), options.count)
    else:
        sys.stdout.write(_report(options.folder, options.count))


if __name__ == "__main__":
    main()
