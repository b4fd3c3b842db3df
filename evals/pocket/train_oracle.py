"""Train the oracle of a world: `python -m pleinair.evals.pocket.train_oracle --minutes 8`.

Its images come from the same world as the pocket models' but from a block of seeds of its own.
"""

import argparse
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path
from safetensors.torch import save_file
from torch import Tensor

from pleinair.evals.pocket.oracle import CATALOGUE_WEIGHTS, WEIGHTS, OracleNet
from pleinair.tools.pocket.catalogue import scenes as catalogue_scenes
from pleinair.tools.pocket.catalogue import species as catalogue_species
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.invented import world
from pleinair.tools.pocket.training import scenes, streams
from pleinair.tools.pocket.training.catalogue import cases, samples
from pleinair.tools.pocket.training.course import Course, Run
from pleinair.tools.pocket.training.images import Sample, SamplePool, degrade, pixels

FIRST_INDEX = 1_700_000_000
BATCH, RATE, POOL = 64, 3e-3, 8000


@dataclass(frozen=True, slots=True)
class World:
    """What the training needs of a world: its species' names, their samples, and where the weights belong."""

    names: Sequence[str]
    make: Callable[[int], Sample]  # render training sample `index`
    side: int  # pixels of its images
    dilations: Sequence[int]  # of the oracle's blocks: its sight must reach across a subject
    weights: Path
    minutes: float


def _make_invented(index: int) -> Sample:
    """Render a sample of any species, a quarter of the subjects being strangers."""
    rng = streams.training_rng(FIRST_INDEX + index)
    return scenes.render_sample(rng, scenes.choose_species(rng, world.SPECIES))


def _make_catalogue(index: int) -> Sample:
    """Render a sample of any species, a fifth of the subjects being strangers."""
    rng = cases.training_rng(FIRST_INDEX + index)
    species = samples.choose_species(rng, catalogue_species.SPECIES, strangers=0.2)
    return samples.make_sample(draw_scene(rng, species))


WORLDS = {
    "invented": World([s.name for s in world.SPECIES], _make_invented, world.SIZE, (1, 2, 1), WEIGHTS, 8),
    "catalogue": World(
        [s.name for s in catalogue_species.SPECIES],
        _make_catalogue,
        catalogue_scenes.SIZE,
        (1, 2, 4, 1),
        CATALOGUE_WEIGHTS,
        60,
    ),
}


def _targets(batch: Sequence[Sample], names: Sequence[str]) -> Tensor:
    """Return class indices [n, cells, cells]; -100 where subject and background mix."""
    maps = np.stack([s.owner for s in batch]).astype(np.int64)
    classes = np.full(maps.shape, len(names) + 1)
    for n, sample in enumerate(batch):
        for number, subject in enumerate(sample.scene.subjects, start=1):
            name = subject.species.name
            classes[n][maps[n] == number] = names.index(name) if name else len(names)
    classes[maps < 0] = -100
    return torch.from_numpy(classes)


def train(run: Run, world: World = WORLDS["invented"]) -> None:
    """Train the oracle and write its weights as half floats, with the species' names, to `run.out`."""
    torch.manual_seed(23)
    net = OracleNet(len(world.names), dilations=world.dilations)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.02)
    course = Course(run, "oracle", net, [optimizer], _schedule, clip=math.inf)
    pool, rng = SamplePool(world.make, run.size(POOL, 12)), random.Random(11)
    noise = torch.Generator().manual_seed(11)
    for _ in course.steps():
        batch = pool.batch(rng, run.size(BATCH, 8), fresh=6)
        logits = net(degrade(pixels(batch), noise))
        course.descend(torch.nn.functional.cross_entropy(logits, _targets(batch, world.names)))
    state = {key: value.half().contiguous() for key, value in net.state_dict().items()}
    facts = {"names": world.names, "side": world.side, "dilations": world.dilations}
    save_file(state, run.out, metadata={key: json.dumps(fact) for key, fact in facts.items()})


def _schedule(progress: float, step: int) -> float:
    return min(1, step / 50) * (1 - progress)


def main() -> None:
    """Train and save; `python -m pleinair.evals.pocket.models --model oracle` measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=WORLDS, default="invented", help="(%(default)s)")
    parser.add_argument("--minutes", type=float, help="training time, earlier runs included; by the world")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --work")
    parser.add_argument("--path", type=Path, help="of the weights; by default where they belong")
    parser.add_argument("--work", type=Path, help="folder of the checkpoint; default: the cache")
    options = parser.parse_args()
    torch.set_num_threads(1)
    world, cache = WORLDS[options.world], user_cache_path("pleinair-training") / options.world
    minutes, path = options.minutes or world.minutes, options.path or world.weights
    train(Run(path, options.work or cache, minutes, options.resume, tiny=False), world)


if __name__ == "__main__":
    main()
