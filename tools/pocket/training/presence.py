"""Training of a concept detector on the frozen encoder of its world.

The detector is asked for phrases, some of which fit the image. A detector with details also learns, patch by
patch, the names of the species that it sees. The logit is calibrated afterwards on other images (Guo et al.
2017: a temperature; here with a shift too).
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pleinair.tools.model_files.folders import checksum
from pleinair.tools.pocket.detector import DIM, PATCHES, DetectorNet, encode_images, load_encoder
from pleinair.tools.pocket.training.contrastive import (
    encode_texts,
    normalise,
    patch_owners,
    warm_up_and_decay,
)
from pleinair.tools.pocket.training.course import Course, Run, muon_and_adam
from pleinair.tools.pocket.training.images import Rng, Sample, degrade, pixels

BATCH = 48
MATRICES = ("mix", "gather", "read", "details.net")  # modules whose matrices and kernels Muon steps
POOL, CALIBRATION = 2500, 1500  # images
PHRASES = 4  # for each image
GRID = 8  # patches a side
SHARPNESS = 20.0  # of the cosines between details and names
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class View:
    """Image with the subjects that are really in it, and species that are similar to them."""

    sample: Sample
    near: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """Phrase about a view: whether it fits, its box, and the patches [64] that it covers."""

    words: str
    fits: bool
    box: Corners = (0.0, 0.0, 0.0, 0.0)  # centre x, centre y, width, height
    patches: NDArray[np.float32] = field(default_factory=lambda: np.zeros(PATCHES, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class World:
    """What the training needs of a world.

    `names` are those of the species that the detector is taught, `words` those of its texts, and `untaught`
    has the kind of each name that it must not claim to know. Item 0 and upwards of `rng` are for training,
    from `CALIBRATION_INDEX` for the calibration.
    """

    rng: Callable[[int], Rng]
    make_view: Callable[[Rng], View]
    make_queries: Callable[[Rng, View], list[Query]]  # PHRASES of them
    names: Sequence[str]
    words: Sequence[str]
    untaught: dict[str, str]


CALIBRATION_INDEX = 300_000_000


def fitting_query(words: str, box: Corners, sample: Sample, subjects: Sequence[int]) -> Query:
    """Return the query of a phrase that fits some subjects, numbered from 1; `box` is (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = box
    cells = np.isin(sample.owner, subjects).astype(np.float32)
    share = len(cells) // GRID
    patches = cells.reshape(GRID, share, GRID, share).mean((1, 3)).reshape(-1)
    return Query(words, True, ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), patches)


class FrozenEncoder:
    """Trained encoder, with a cache of the vectors of phrases."""

    def __init__(self, folder: Path) -> None:
        """Load the encoder of a folder."""
        self._clip, _, self._tokenize = load_encoder(folder)
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def texts(self, words: Sequence[str]) -> Tensor:
        """Return unit vectors [n, 128]."""
        missing = [text for text in dict.fromkeys(words) if text not in self._texts]
        if missing:
            self._texts |= dict(zip(missing, encode_texts(self._clip, self._tokenize(missing)), strict=True))
        return torch.stack([self._texts[text] for text in words])

    @torch.no_grad()
    def patches(self, images: Tensor) -> Tensor:
        """Return unit vectors [n, 64, 128] of normalised images."""
        return encode_images(self._clip, images)[1]


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded images, PHRASES of each, and the answers."""

    images: Tensor  # [n / PHRASES, 3, side, side], normalised
    patches: Tensor  # [n / PHRASES, 64, 128]
    texts: Tensor  # [n, 128]
    fits: Tensor  # [n] 0 or 1
    boxes: Tensor  # [n, 4]
    relevant: Tensor  # [n, 64] in 0..1


def _assemble(
    encoder: FrozenEncoder,
    views: Sequence[View],
    queries: Sequence[Sequence[Query]],
    noise: torch.Generator | None,
) -> Batch:
    """Encode views and queries; `noise` degrades the images, None leaves them clean."""
    images = pixels([view.sample for view in views])
    images = normalise(images if noise is None else degrade(images, noise))
    flat = [query for row in queries for query in row]
    return Batch(
        images,
        encoder.patches(images),
        encoder.texts([query.words for query in flat]),
        torch.tensor([float(query.fits) for query in flat]),
        torch.tensor([query.box for query in flat]),
        torch.from_numpy(np.stack([query.patches for query in flat])),
    )


def _answer(net: DetectorNet, batch: Batch) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
    """Return what the network says about each phrase, and the details of each image."""
    details = net.extract_details(batch.images)
    repeated = None if details is None else details.repeat_interleave(PHRASES, 0)
    return net(batch.patches.repeat_interleave(PHRASES, 0), batch.texts, repeated), details


def _presence_loss(answer: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Tensor:
    """Return the sum of the losses of presence, relevance and, where the phrase fits, the box."""
    logits, corners, relevance = answer
    presence = F.binary_cross_entropy_with_logits(logits, batch.fits)
    patches = F.binary_cross_entropy_with_logits(relevance, batch.relevant)
    fitting = batch.fits > 0
    return presence + patches + 3 * F.l1_loss(corners[fitting], batch.boxes[fitting])


class Names(nn.Module):
    """Classes of the details: the taught species' names, a look that is no species, and background."""

    def __init__(self, names: Sequence[str], encoder: FrozenEncoder) -> None:
        """Encode the names."""
        super().__init__()
        self._index = {name: number for number, name in enumerate(names)}
        self.register_buffer("vectors", encoder.texts(names), persistent=False)
        self.others = nn.Parameter(torch.randn(2, DIM))

    def loss(self, net: DetectorNet, details: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Return the patches' cross-entropy over the names; details are [n, 64, width]."""
        classes = torch.cat([self.vectors, F.normalize(self.others, dim=-1)])  # type: ignore[list-item]
        scores = SHARPNESS * net.project(details) @ classes.T
        return F.cross_entropy(scores.flatten(0, 1), self._targets(samples), ignore_index=-1)

    def _targets(self, samples: Sequence[Sample]) -> Tensor:
        owners = patch_owners(np.stack([sample.owner for sample in samples]), GRID)
        targets = np.where(owners == 0, len(self._index) + 1, -1)
        for row, sample in enumerate(samples):
            for number, subject in enumerate(sample.scene.subjects, start=1):
                name = self._index.get(subject.species.name, len(self._index))
                targets[row][owners[row] == number] = name
        return torch.from_numpy(targets.reshape(-1))


@torch.no_grad()
def examine(
    net: DetectorNet, encoder: FrozenEncoder, world: World, rngs: Sequence[Rng], degraded: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Return logits [n], truth [n] 0 or 1 and box overlap [n] on fresh views, and the phrases."""
    views = [world.make_view(rng) for rng in rngs]
    queries = [world.make_queries(rng, view) for rng, view in zip(rngs, views, strict=True)]
    noise, parts = torch.Generator().manual_seed(1) if degraded else None, []
    for start in range(0, len(views), 500):
        batch = _assemble(encoder, views[start : start + 500], queries[start : start + 500], noise)
        (logits, corners, _), _ = _answer(net, batch)
        parts.append((logits, batch.fits, _overlap(corners, batch.boxes)))
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    examined = dict(zip(("logits", "fits", "overlap"), columns, strict=True))
    return examined, [query.words for row in queries for query in row]


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of boxes [n, 4] as centre and size."""
    low = torch.maximum(first[:, :2] - first[:, 2:] / 2, second[:, :2] - second[:, 2:] / 2)
    high = torch.minimum(first[:, :2] + first[:, 2:] / 2, second[:, :2] + second[:, 2:] / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (first[:, 2:].prod(-1) + second[:, 2:].prod(-1) - shared)


def _calibrate(logits: Tensor, fits: Tensor) -> tuple[float, float]:
    """Return scale and shift of the logit that minimise the cross-entropy."""
    parameters = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(logits * parameters[0] + parameters[1], fits)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    scale, shift = parameters.tolist()
    return scale, shift


def fit(run: Run, world: World, sizes: dict[str, Any]) -> Course:
    """Train the detector on the run's encoder, calibrate it and write its folder without a card.

    `sizes` are the arguments of `DetectorNet`.
    """
    torch.manual_seed(4)
    torch.set_num_threads(1)
    encoder, checked = FrozenEncoder(run.out / "encoder"), checksum(run.out / "encoder")
    net, pool = DetectorNet(**sizes), run.size(POOL, 8)
    names = Names(world.names, encoder)
    model = nn.ModuleDict({"net": net, "names": names} if net.details else {"net": net})
    optimizers = muon_and_adam(model, MATRICES)
    course = Course(run, f"detector-{checked}", model, optimizers, warm_up_and_decay)
    rng, noise = random.Random(course.step + 7), torch.Generator().manual_seed(course.step + 7)
    start = 10 * course.step
    views = [world.make_view(world.rng(start + index)) for index in range(pool)]
    for step in course.steps():
        for fresh in range(4 * step, 4 * step + 4):
            views[fresh % pool] = world.make_view(world.rng(start + pool + fresh))
        batch = rng.sample(views, run.size(BATCH, 8))
        queries = [world.make_queries(rng, view) for view in batch]
        encoded = _assemble(encoder, batch, queries, noise)
        answer, details = _answer(net, encoded)
        loss = _presence_loss(answer, encoded)
        if details is not None:
            loss = loss + names.loss(net, details, [view.sample for view in batch])
        course.descend(loss)
    _write(run, net, encoder, world, {"encoder": checked, "net": sizes})
    return course


def load_net(folder: Path) -> tuple[DetectorNet, dict[str, Any]]:
    """Load the network and the configuration of a detector's folder."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    net = DetectorNet(**config["net"])
    net.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    return net.eval(), config


def _write(run: Run, net: DetectorNet, encoder: FrozenEncoder, world: World, config: dict[str, Any]) -> None:
    """Calibrate the detector and write its weights and configuration."""
    from safetensors.torch import save_file

    count, folder = run.size(CALIBRATION, 8), run.out / "detector"
    rngs = [world.rng(CALIBRATION_INDEX + index) for index in range(count)]
    examined, _ = examine(net, encoder, world, rngs, degraded=True)
    scale, shift = _calibrate(examined["logits"], examined["fits"])
    config |= {"calibration": {"scale": scale, "shift": shift}, "words": sorted(world.words)}
    if world.untaught:
        config["untaught"] = world.untaught
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, folder / "model.safetensors")
