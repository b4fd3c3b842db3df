"""Train the oracle: `python -m pleinair.evals.pocket.train_oracle`.

Its images come from the same world as the pocket models' but from a block of seeds of its own.
"""

import argparse
import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path
from safetensors.torch import save_file
from torch import Tensor

from pleinair.evals.pocket.oracle import WEIGHTS, OracleNet
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import SIZE
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.pocket.training.cases import training_rng
from pleinair.tools.pocket.training.course import Course, Run
from pleinair.tools.pocket.training.images import (
    Sample,
    SamplePool,
    choose_species,
    degrade,
    make_sample,
    pixels,
)

FIRST_INDEX = 1_700_000_000
BATCH, RATE, POOL = 64, 3e-3, 8000
DILATIONS = (1, 2, 4, 1)  # of the blocks: their sight must reach across a subject
COUNTS = (1, 1, 2)  # weights of one, two and three subjects
DARK = 0.15  # share of nights beside the world's own
LIT = ("table", "underwater")  # places without a light
MINUTES = 180.0


def _make(index: int) -> Sample:
    """Render a sample of any species, a fifth of the subjects being strangers; every fifth is at night."""
    rng = training_rng(FIRST_INDEX + index)
    scene = draw_scene(rng, choose_species(rng, SPECIES, strangers=0.2, counts=COUNTS))
    is_dark = rng.random() < DARK and scene.background not in LIT
    return make_sample(replace(scene, light="night") if is_dark else scene)


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


def train(run: Run) -> None:
    """Train the oracle and write its weights as half floats, with the species' names, to `run.out`."""
    torch.manual_seed(23)
    names = [species.name for species in SPECIES]
    net = OracleNet(len(names), dilations=DILATIONS)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.02)
    course = Course(run, "oracle", net, [optimizer], _schedule, clip=math.inf)
    pool, rng = SamplePool(_make, run.size(POOL, 12)), random.Random(11)
    noise = torch.Generator().manual_seed(11)
    for _ in course.steps():
        batch = pool.batch(rng, run.size(BATCH, 8), fresh=6)
        logits = net(degrade(pixels(batch), noise))
        course.descend(torch.nn.functional.cross_entropy(logits, _targets(batch, names)))
    state = {key: value.half().contiguous() for key, value in net.state_dict().items()}
    facts = {"names": names, "side": SIZE, "dilations": DILATIONS}
    save_file(state, run.out, metadata={key: json.dumps(fact) for key, fact in facts.items()})


def _schedule(progress: float, step: int) -> float:
    return min(1, step / 50) * (1 - progress)


def main() -> None:
    """Train and save; `python -m pleinair.evals.pocket.models --model oracle` measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="earlier runs included (%(default)g)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --work")
    parser.add_argument("--path", type=Path, default=WEIGHTS, help="of the weights (%(default)s)")
    parser.add_argument("--work", type=Path, help="folder of the checkpoint; default: the cache")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = options.work or user_cache_path("pleinair-training") / "catalogue"
    train(Run(options.path, work, options.minutes, options.resume, tiny=False))


if __name__ == "__main__":
    main()
