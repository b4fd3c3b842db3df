"""Training of the pocket concept detector on the frozen pocket encoder.

Some phrases fit; others name rivals of the same kind, share a colour, or describe what is nearly there. Some
images show spoilt subjects, half one species and half another, which fit no phrase. Rare species are in the
data, novel ones are not. The logit is calibrated afterwards on other images (Guo et al. 2017: a temperature;
here with a shift too).
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pleinair.tools.model_files.folders import checksum
from pleinair.tools.pocket.detector import DetectorNet, encode_images, load_encoder
from pleinair.tools.pocket.prompts import PARTS, PLACES, RELATIONS
from pleinair.tools.pocket.shapes import PALETTE
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.course import Course, Run
from pleinair.tools.pocket.training.encoder import encode_texts, normalise, warm_up_and_decay
from pleinair.tools.pocket.training.scenes import (
    TAUGHT,
    Rng,
    Sample,
    Text,
    choose_species,
    degrade,
    impostor,
    owner_map,
    phrase,
    pixels,
    render_sample,
)
from pleinair.tools.pocket.training.streams import training_rng
from pleinair.tools.pocket.world import KINDS, PATTERNS, Scene, Species, Subject, boxes, random_scene, render

FIRST_INDEX, CALIBRATION_INDEX = 600_000_000, 900_000_000
BATCH, RATE = 48, 1.5e-3
POOL, CALIBRATION = 2500, 1500  # images
PHRASES = 4  # for each image
GRID = 8  # patches a side


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
    box: tuple[float, float, float, float]  # centre x, centre y, width, height; zeros where it does not fit
    patches: NDArray[np.float32]


def _make_view(rng: Rng) -> View:
    """Render taught species, impostors and invented looks; one view in seven has a spoilt subject."""
    if rng.random() < 0.15:
        return _spoilt_view(rng)
    near = choose_species(rng, TAUGHT, strangers=0)
    species = [s if rng.random() < 0.7 else impostor(rng, s) for s in near]
    return View(render_sample(rng, species), tuple(near))


def _spoilt_view(rng: Rng) -> View:
    """Render a scene whose first subject is half one species and half another; it fits neither."""
    species = choose_species(rng, TAUGHT, strangers=0)
    rivals = [s for s in TAUGHT if s.kind == species[0].kind and _differ(s, species[0])]
    other = rng.choice(rivals)
    scene = random_scene(rng, species, relation=rng.choice(RELATIONS))
    subject = scene.subjects[0]
    twin = Scene((replace(subject, species=other), *scene.subjects[1:]), scene.background, scene.seed)
    merged = _merge(rng, np.asarray(render(scene)), np.asarray(render(twin)), subject)
    rest = Scene(scene.subjects[1:], scene.background, scene.seed)
    return View(Sample(merged, owner_map(rest), rest), (species[0], other, *species[1:]))


def _differ(first: Species, second: Species) -> bool:
    """Return whether two species share neither body nor accent colour."""
    return first.body != second.body and first.accent != second.accent


def _merge(
    rng: Rng, first: NDArray[np.uint8], second: NDArray[np.uint8], subject: Subject
) -> NDArray[np.uint8]:
    """Mix two renderings of a scene: their mean, or one half of the subject from each."""
    share = np.full(first.shape, rng.uniform(0.4, 0.6), dtype=np.float32)
    if rng.random() < 0.7:
        share[:] = 0
        vertical = rng.random() < 0.5
        cut = round((subject.x if vertical else subject.y) * len(first))
        (share[:, cut:] if vertical else share[cut:])[...] = 1
    mixed: NDArray[np.uint8] = (first * (1 - share) + second * share).round().astype(np.uint8)
    return mixed


def _make_queries(rng: Rng, view: View) -> list[Query]:
    """Return a phrase for every subject of the view, filled up to four with phrases that fit none."""
    species = [subject.species for subject in view.sample.scene.subjects]
    queries = [_positive(view, number, phrase(rng, s)) for number, s in enumerate(species)]
    while len(queries) < PHRASES:
        text = phrase(rng, rng.choice(_CANDIDATES)(rng, view))
        look = text.looks[0]
        full = look.accent is not None  # a name or a full description may be of a species that is near
        if not any(look.fits(s) for s in (species if full else (*view.near, *species))):
            queries.append(Query(text.words, False, (0, 0, 0, 0), np.zeros(GRID * GRID, dtype=np.float32)))
    return queries


def _positive(view: View, number: int, text: Text) -> Query:
    """Query for a subject; a loose phrase that fits two subjects covers both and has the first one's box."""
    scene = view.sample.scene
    x0, y0, x1, y1 = boxes(scene)[number]
    fitting = [n for n, s in enumerate(scene.subjects, start=1) if text.looks[0].fits(s.species)]
    cells = np.isin(view.sample.owner, fitting).astype(np.float32)
    patches = cells.reshape(GRID, 2, GRID, 2).mean((1, 3)).reshape(-1)
    return Query(text.words, True, ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), patches)


def _rival(rng: Rng, view: View) -> Species:
    """Return a taught species of the same kind that shares a colour, or else just the kind."""
    near = rng.choice(view.near)
    kin = [s for s in TAUGHT if s.kind == near.kind and s != near]
    close = [s for s in kin if not _differ(s, near)]
    return rng.choice(close if close and rng.random() < 0.5 else kin)


def _other_pattern(rng: Rng, view: View) -> Species:
    near = rng.choice(view.near)
    return replace(near, name="", pattern=rng.choice([p for p in PATTERNS if p != near.pattern]))


def _other_kind(rng: Rng, view: View) -> Species:
    near = rng.choice(view.near)
    return replace(near, name="", kind=rng.choice([s.kind for s in TAUGHT if s.kind != near.kind]))


_CANDIDATES: Sequence[Callable[[Rng, View], Species]] = (
    lambda rng, view: rng.choice(TAUGHT),
    lambda rng, view: rng.choice(view.near),
    _rival,
    _rival,
    lambda rng, view: impostor(rng, rng.choice(view.near)),
    _other_pattern,
    _other_kind,
)


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
        """Return unit vectors [n, 64, 128] of images in 0..1."""
        return encode_images(self._clip, normalise(images))[1]


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded pairs of image and phrase, with the answers."""

    patches: Tensor  # [n, 64, 128]
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
    patches = encoder.patches(images if noise is None else degrade(images, noise))
    flat = [query for row in queries for query in row]
    return Batch(
        patches.repeat_interleave(PHRASES, 0),
        encoder.texts([query.words for query in flat]),
        torch.tensor([float(query.fits) for query in flat]),
        torch.tensor([query.box for query in flat]),
        torch.from_numpy(np.stack([query.patches for query in flat])),
    )


def _loss(net: DetectorNet, batch: Batch) -> Tensor:
    """Return the sum of the losses of presence, relevance and, where the phrase fits, the box."""
    logits, corners, relevance = net(batch.patches, batch.texts)
    presence = F.binary_cross_entropy_with_logits(logits, batch.fits)
    patches = F.binary_cross_entropy_with_logits(relevance, batch.relevant)
    fitting = batch.fits > 0
    return presence + patches + 3 * F.l1_loss(corners[fitting], batch.boxes[fitting])


@torch.no_grad()
def examine(
    net: DetectorNet, encoder: FrozenEncoder, rngs: Sequence[Rng], degraded: bool
) -> dict[str, Tensor]:
    """Return logits [n], truth [n] 0 or 1 and box overlap [n] on fresh views, four phrases each."""
    views = [_make_view(rng) for rng in rngs]
    queries = [_make_queries(rng, view) for rng, view in zip(rngs, views, strict=True)]
    batch = _assemble(encoder, views, queries, torch.Generator().manual_seed(1) if degraded else None)
    logits, corners, _ = net(batch.patches, batch.texts)
    return {"logits": logits, "fits": batch.fits, "overlap": _overlap(corners, batch.boxes)}


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


def _training_words() -> list[str]:
    """Return every word of the encoder's training texts."""
    names = " ".join(s.name for s in TAUGHT)
    places = " ".join(words for wordings in PLACES.values() for words in wordings)
    words = f"{names} {places} {' '.join((*KINDS, *PARTS.values(), *PALETTE, *PATTERNS))} a an photo of with"
    return sorted(set(words.split()))


def train(run: Run) -> None:
    """Train the detector on the run's encoder, calibrate it and write its folder."""
    torch.manual_seed(4)
    torch.set_num_threads(1)
    encoder, checked = FrozenEncoder(run.out / "encoder"), checksum(run.out / "encoder")
    sizes: dict[str, Any] = run.size({"width": 96, "queries": 4, "heads": 4}, {"width": 32, "queries": 2})
    net, pool = DetectorNet(**sizes), run.size(POOL, 8)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    course = Course(run, f"detector-{checked}", net, [optimizer], warm_up_and_decay)
    rng, noise = random.Random(course.step + 7), torch.Generator().manual_seed(course.step + 7)
    start = FIRST_INDEX + 10 * course.step
    views = [_make_view(training_rng(start + index)) for index in range(pool)]
    for step in course.steps():
        for fresh in range(4 * step, 4 * step + 4):
            views[fresh % pool] = _make_view(training_rng(start + pool + fresh))
        batch = rng.sample(views, run.size(BATCH, 8))
        queries = [_make_queries(rng, view) for view in batch]
        course.descend(_loss(net, _assemble(encoder, batch, queries, noise)))
    _write(course, net, encoder, {"encoder": checked, "net": sizes})


def _write(course: Course, net: DetectorNet, encoder: FrozenEncoder, config: dict[str, Any]) -> None:
    """Calibrate the detector and write weights, configuration and card."""
    from safetensors.torch import save_file

    count, folder = course.run.size(CALIBRATION, 8), course.run.out / "detector"
    rngs = [training_rng(CALIBRATION_INDEX + index) for index in range(count)]
    examined = examine(net, encoder, rngs, degraded=True)
    scale, shift = _calibrate(examined["logits"], examined["fits"])
    config |= {"calibration": {"scale": scale, "shift": shift}, "words": _training_words()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, folder / "model.safetensors")
    write_card(folder, "Pocket concept detector", __doc__ or "", course)
