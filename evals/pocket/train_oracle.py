"""Train the oracle: `python -m pleinair.evals.pocket.train_oracle --minutes 8`.

Its images come from the same world as the pocket models' but from a block of seeds of its own.
"""

import argparse
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path
from safetensors.torch import save_file
from torch import Tensor

from pleinair.evals.pocket.oracle import WEIGHTS, OracleNet
from pleinair.tools.pocket.training.course import Course, Run
from pleinair.tools.pocket.training.scenes import (
    Sample,
    SamplePool,
    choose_species,
    degrade,
    pixels,
    render_sample,
)
from pleinair.tools.pocket.training.streams import training_rng
from pleinair.tools.pocket.world import SPECIES

NAMES = [species.name for species in SPECIES]
FIRST_INDEX = 1_700_000_000
BATCH, RATE, POOL = 64, 3e-3, 8000


def _make(index: int) -> Sample:
    """Render training sample `index` of any species, a quarter of the subjects being strangers."""
    rng = training_rng(FIRST_INDEX + index)
    return render_sample(rng, choose_species(rng, SPECIES))


def _targets(samples: Sequence[Sample]) -> Tensor:
    """Return class indices [n, 16, 16]; -100 where subject and background mix."""
    maps = np.stack([s.owner for s in samples]).astype(np.int64)
    classes = np.full(maps.shape, len(NAMES) + 1)
    for n, sample in enumerate(samples):
        for number, subject in enumerate(sample.scene.subjects, start=1):
            name = subject.species.name
            classes[n][maps[n] == number] = NAMES.index(name) if name else len(NAMES)
    classes[maps < 0] = -100
    return torch.from_numpy(classes)


def train(run: Run) -> None:
    """Train the oracle and write its weights as half floats, with the species' names, to `run.out`."""
    torch.manual_seed(23)
    net = OracleNet(len(NAMES))
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.02)
    course = Course(run, "oracle", net, [optimizer], _schedule, clip=math.inf)
    pool, rng = SamplePool(_make, run.size(POOL, 12)), random.Random(11)
    noise = torch.Generator().manual_seed(11)
    for _ in course.steps():
        samples = pool.batch(rng, run.size(BATCH, 8), fresh=6)
        logits = net(degrade(pixels(samples), noise))
        course.descend(torch.nn.functional.cross_entropy(logits, _targets(samples)))
    state = {key: value.half().contiguous() for key, value in net.state_dict().items()}
    save_file(state, run.out, metadata={"names": json.dumps(NAMES)})


def _schedule(progress: float, step: int) -> float:
    return min(1, step / 50) * (1 - progress)


def main() -> None:
    """Train and save; `python -m pleinair.evals.pocket.models --model oracle` measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8, help="training time, earlier runs included (8)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in the cache")
    parser.add_argument("--path", type=Path, default=WEIGHTS, help="of the weights (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = user_cache_path("pleinair-training") / "full"
    train(Run(options.path, work, options.minutes, options.resume, tiny=False))


if __name__ == "__main__":
    main()
