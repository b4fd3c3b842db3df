"""Training of the pocket concept detector on the frozen pocket encoder.

It is asked for phrases. Some fit the image; others name rivals of the same kind or the species of which an
impostor is shown, or describe what is nearly there. Patch by patch it also learns the names of the species
that it sees. Rare species are in the data, novel ones are not. The logit is calibrated afterwards on other
images (Guo et al. 2017: a temperature; here with a shift too). Not covered: subjects that are half one
species and half another.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pleinair.tools.model_files.folders import checksum
from pleinair.tools.pocket.catalogue.captions import Text, phrase
from pleinair.tools.pocket.catalogue.sampling import draw_scene, impostor, stranger
from pleinair.tools.pocket.catalogue.scenes import boxes
from pleinair.tools.pocket.catalogue.species import KINDS, SPECIES, Species, plain
from pleinair.tools.pocket.detector import DIM, PATCHES, DetectorNet, encode_images, load_encoder
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.cases import training_rng
from pleinair.tools.pocket.training.course import Course, Run, muon_and_adam
from pleinair.tools.pocket.training.encoder import (
    encode_texts,
    normalise,
    patch_owners,
    training_texts,
    warm_up_and_decay,
)
from pleinair.tools.pocket.training.images import (
    TAUGHT,
    Rng,
    Sample,
    choose_species,
    degrade,
    make_sample,
    pixels,
)

FIRST_INDEX, CALIBRATION_INDEX = 1_200_000_000, 300_000_000  # the second is added to the first
TEXTS = 20_000  # from which the words are taken
STRANGERS = 0.3
BATCH = 48
MATRICES = ("mix", "gather", "read", "details.net")  # modules whose matrices and kernels Muon steps
POOL, CALIBRATION = 2500, 1500  # images
PHRASES = 4  # for each image
GRID = 8  # patches a side
SIZES = {"width": 96, "queries": 4, "heads": 4, "details": 128}  # arguments of the network
TINY_SIZES = {"width": 32, "queries": 2, "details": 16}
UNTAUGHT = {s.name: s.kind for s in SPECIES if s.tier == "novel"}  # names that it must not claim to know
SHARPNESS = 20.0  # of the cosines between details and names
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class View:
    """Image with the subjects that are really in it, and species that are similar to them."""

    sample: Sample
    near: tuple[Species, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """Phrase about a view: whether it fits, its box, and the patches [64] that it covers."""

    words: str
    fits: bool
    box: Corners = (0.0, 0.0, 0.0, 0.0)  # centre x, centre y, width, height
    patches: NDArray[np.float32] = field(default_factory=lambda: np.zeros(PATCHES, dtype=np.float32))


def make_view(rng: Rng) -> View:
    """Render taught species and strangers."""
    near = choose_species(rng, TAUGHT, strangers=0.0)
    species = [s if rng.random() >= STRANGERS else stranger(rng, s) for s in near]
    return View(make_sample(draw_scene(rng, species)), tuple(near))


def make_queries(rng: Rng, view: View) -> list[Query]:
    """Return a phrase for every subject of the view, filled up to four with phrases that fit none."""
    species = [subject.species for subject in view.sample.scene.subjects]
    queries = [_positive(view, number, phrase(rng, s)) for number, s in enumerate(species)]
    while len(queries) < PHRASES:
        text = phrase(rng, rng.choice(_CANDIDATES)(rng, view))
        if all(text.looks[0].contradicts(s) for s in species):
            queries.append(Query(text.words, False))
    return queries


def _positive(view: View, subject: int, text: Text) -> Query:
    """Query for a subject; a phrase that fits several covers all and has the box of the subject's first."""
    scene = view.sample.scene
    fitting = [n for n, s in enumerate(scene.subjects, start=1) if text.looks[0].fits(s.species)]
    pairs = zip(scene.figures, boxes(scene), strict=True)
    box = next(box for figure, box in pairs if figure.subject == subject)
    return _fitting_query(text.words, box, view.sample, fitting)


def _rival(rng: Rng, view: View) -> Species:
    near = rng.choice(view.near)
    return rng.choice([s for s in TAUGHT if s.kind == near.kind and s != near])


_CANDIDATES: Sequence[Callable[[Rng, View], Species]] = (
    lambda rng, view: rng.choice(TAUGHT),
    lambda rng, view: rng.choice(view.near),
    lambda rng, view: rng.choice(view.near),
    _rival,
    _rival,
    lambda rng, view: impostor(rng, rng.choice(view.near)),
    lambda rng, view: replace(plain(rng.choice(tuple(KINDS))), name=""),
)


def _fitting_query(words: str, box: Corners, sample: Sample, subjects: Sequence[int]) -> Query:
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


def _answer(net: DetectorNet, batch: Batch) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Return what the network says about each phrase, and the details of each image."""
    details = net.extract_details(batch.images)
    assert details is not None  # of a network built with `details`
    repeated = details.repeat_interleave(PHRASES, 0)
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

    def __init__(self, encoder: FrozenEncoder) -> None:
        """Encode the names."""
        super().__init__()
        names = [species.name for species in TAUGHT]
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
    net: DetectorNet, encoder: FrozenEncoder, rngs: Sequence[Rng], *, degraded: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Return logits [n], truth [n] 0 or 1 and box overlap [n] on fresh views, and the phrases."""
    views = [make_view(rng) for rng in rngs]
    queries = [make_queries(rng, view) for rng, view in zip(rngs, views, strict=True)]
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


def training_words(texts: int) -> list[str]:
    """Return the words of so many of the encoder's training texts, and of the taught names, in order."""
    names = [species.name for species in TAUGHT]
    words = {word for text in (*training_texts(texts), *names) for word in re.findall(r"[^\W\d_]+", text)}
    return sorted(words)


def _rng(index: int) -> Rng:
    return training_rng(FIRST_INDEX + index)


def train(run: Run) -> None:
    """Train the detector on the run's encoder, calibrate it and write its folder."""
    torch.manual_seed(4)
    torch.set_num_threads(1)
    encoder, checked = FrozenEncoder(run.out / "encoder"), checksum(run.out / "encoder")
    sizes = run.size(SIZES, TINY_SIZES)
    net, pool = DetectorNet(**sizes), run.size(POOL, 8)
    names = Names(encoder)
    model = nn.ModuleDict({"net": net, "names": names})
    course = Course(run, f"detector-{checked}", model, muon_and_adam(model, MATRICES), warm_up_and_decay)
    rng, noise = random.Random(course.step + 7), torch.Generator().manual_seed(course.step + 7)
    start = 10 * course.step
    views = [make_view(_rng(start + index)) for index in range(pool)]
    for step in course.steps():
        for fresh in range(4 * step, 4 * step + 4):
            views[fresh % pool] = make_view(_rng(start + pool + fresh))
        batch = rng.sample(views, run.size(BATCH, 8))
        queries = [make_queries(rng, view) for view in batch]
        encoded = _assemble(encoder, batch, queries, noise)
        answer, details = _answer(net, encoded)
        loss = names.loss(net, details, [view.sample for view in batch])
        course.descend(_presence_loss(answer, encoded) + loss)
    _write(run, net, encoder, {"encoder": checked, "net": sizes})
    write_card(run.out / "detector", "Pocket concept detector", __doc__ or "", course)


def load_net(folder: Path) -> tuple[DetectorNet, dict[str, Any]]:
    """Load the network and the configuration of a detector's folder."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    net = DetectorNet(**config["net"])
    net.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    return net.eval(), config


def _write(run: Run, net: DetectorNet, encoder: FrozenEncoder, config: dict[str, Any]) -> None:
    """Calibrate the detector and write its weights and configuration."""
    from safetensors.torch import save_file

    count, folder = run.size(CALIBRATION, 8), run.out / "detector"
    rngs = [_rng(CALIBRATION_INDEX + index) for index in range(count)]
    examined, _ = examine(net, encoder, rngs, degraded=True)
    scale, shift = _calibrate(examined["logits"], examined["fits"])
    config |= {"calibration": {"scale": scale, "shift": shift}}
    config |= {"words": training_words(run.size(TEXTS, 100)), "untaught": UNTAUGHT}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, folder / "model.safetensors")
