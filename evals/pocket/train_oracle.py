"""Train the oracle: `python -m pleinair.evals.pocket.train_oracle --minutes 8`.

Its pictures come from the same world as the pocket models' but from a block of seeds of its own.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pleinair.evals.pocket.oracle import WEIGHTS, Oracle, OracleNet
from pleinair.tools.pocket.training.embed import pixels
from pleinair.tools.pocket.training.pictures import Pool, Sample, choose, draw
from pleinair.tools.pocket.training.wear import wear
from pleinair.tools.pocket.world import SPECIES, held_out_rng, random_scene, render, training_rng

NAMES = [species.name for species in SPECIES]
FIRST_INDEX = 1_700_000_000
BATCH = 64
RATE = 3e-3


def _make(index: int) -> Sample:
    """Render training sample `index` of any species, a quarter of the subjects being strangers."""
    rng = training_rng(FIRST_INDEX + index)
    return draw(rng, choose(rng, SPECIES))


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


def _train(minutes: float, net: OracleNet, size: int = 8000) -> int:
    """Train in place for `minutes` and return the number of steps; the rate falls to 0 over the time."""
    pool, rng = Pool(_make, size), random.Random(11)
    noise = torch.Generator().manual_seed(11)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.02)
    started, step = time.monotonic(), 0
    net.train()
    while (part := (time.monotonic() - started) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = RATE * min(1, step / 50) * (1 - part)
        samples = pool.batch(rng, BATCH, fresh=6)
        logits = net(wear(pixels(samples), noise))
        loss = torch.nn.functional.cross_entropy(logits, _targets(samples))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step}  {part:.0%}  loss {loss.item():.4f}", flush=True)  # noqa: T201
    return step


def _save(net: OracleNet, path: Path) -> None:
    """Write the weights as half floats, with the species' names."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: value.half().contiguous() for key, value in net.state_dict().items()}
    save_file(state, path, metadata={"names": json.dumps(NAMES)})


def measure(oracle: Oracle, count: int = 500, worn: float = 0.0) -> tuple[float, float]:
    """Return the share of held-out scenes with exactly the right species: one subject, two subjects."""
    shares = []
    for subjects in (1, 2):
        rights = [_right(oracle, index, subjects, worn) for index in range(count)]
        shares.append(sum(rights) / count)
    return shares[0], shares[1]


def _right(oracle: Oracle, index: int, subjects: int, worn: float) -> bool:
    from PIL import Image

    rng = held_out_rng(index)
    chosen = rng.sample(SPECIES, subjects)
    picture = np.asarray(render(random_scene(rng, chosen, relation=rng.choice(("left of", "above")))))
    if worn:
        batch = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
        batch = wear(batch, torch.Generator().manual_seed(index), worn)
        picture = (batch[0].permute(1, 2, 0) * 255).byte().numpy()
    found = oracle.species(Image.fromarray(picture))
    return sorted(finding.name for finding in found) == sorted(species.name for species in chosen)


def main() -> None:
    """Train, save and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--resume", action="store_true", help="start from the saved weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--path", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(23)
    net = Oracle(arguments.path).net if arguments.resume else OracleNet(len(NAMES))
    steps = _train(arguments.minutes, net)
    _save(net, arguments.path)
    for worn in (0.0, 1.0):
        one, two = measure(Oracle(arguments.path), worn=worn)
        print(f"{steps} steps, wear {worn}: one subject {one:.3f}, two subjects {two:.3f}")  # noqa: T201


if __name__ == "__main__":
    main()
