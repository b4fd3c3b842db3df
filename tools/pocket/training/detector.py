"""Train the pocket detector on the frozen pocket encoder.

Some phrases fit; the others name rivals of the same kind, share a colour, or describe what is nearly there.
Some pictures show spoilt subjects, half one species and half another, which fit no phrase. Rare species take
part, novel ones do not. The logit is calibrated afterwards on pictures of its own (Guo et al. 2017: a
temperature; here with a shift besides).
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pleinair.tools.model_files.folders import SHIPPED, checksum
from pleinair.tools.pocket.detector import DetectorNet, encode_images, load_encoder
from pleinair.tools.pocket.prompts import PARTS, PLACES
from pleinair.tools.pocket.shapes import PALETTE
from pleinair.tools.pocket.training.card import Figures, figures_section, write_card
from pleinair.tools.pocket.training.course import Course, Say
from pleinair.tools.pocket.training.embed import encode_short, normalise
from pleinair.tools.pocket.training.texts import TAUGHT
from pleinair.tools.pocket.training.views import Question, View, ask, make_view
from pleinair.tools.pocket.training.wear import wear
from pleinair.tools.pocket.world import KINDS, PATTERNS, held_out_rng, training_rng

FOLDER, ENCODER = SHIPPED / "detector", SHIPPED / "encoder"
FIRST_INDEX = 600_000_000
CALIBRATION_INDEX = 900_000_000
NET: dict[str, Any] = {"width": 96, "queries": 4, "heads": 4}
BATCH = 48
RATE = 1.5e-3
COUNT = 5000  # held-out pictures
BARS = {"precision": ">= .95", "recall": ">= .95", "expected calibration error": "<= .05"}


class Frozen:
    """Hold the encoder and remember the vectors of phrases."""

    def __init__(self) -> None:
        """Load the shipped encoder."""
        self.clip, _, self.tokenize = load_encoder(ENCODER)
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def texts(self, words: Sequence[str]) -> Tensor:
        """Return unit vectors [n, 128]."""
        new = [text for text in dict.fromkeys(words) if text not in self._texts]
        if new:
            self._texts |= dict(zip(new, encode_short(self.clip, self.tokenize(new)), strict=True))
        return torch.stack([self._texts[text] for text in words])

    @torch.no_grad()
    def patches(self, pictures: Tensor) -> Tensor:
        """Return unit vectors [n, 64, 128] of pictures in 0..1."""
        return encode_images(self.clip, normalise(pictures))[1]


@dataclass(frozen=True, slots=True)
class Batch:
    """Hold pairs of picture and phrase, with the answers."""

    patches: Tensor  # [n, 64, 128]
    texts: Tensor  # [n, 128]
    fits: Tensor  # [n] 0 or 1
    boxes: Tensor  # [n, 4]
    relevant: Tensor  # [n, 64] in 0..1


def _assemble(frozen: Frozen, views: Sequence[View], asked: Sequence[Sequence[Question]], worn: Any) -> Batch:
    """Encode views and questions; `worn` is the generator of the wear, or None for clean pictures."""
    pictures = torch.from_numpy(np.stack([v.sample.pixels for v in views])).permute(0, 3, 1, 2).float() / 255
    patches = frozen.patches(pictures if worn is None else wear(pictures, worn))
    flat = [question for questions in asked for question in questions]
    return Batch(
        patches.repeat_interleave(len(asked[0]), 0),
        frozen.texts([question.words for question in flat]),
        torch.tensor([float(question.fits) for question in flat]),
        torch.tensor([question.box for question in flat]),
        torch.from_numpy(np.stack([question.patches for question in flat])),
    )


def _loss_of(net: DetectorNet, batch: Batch) -> Tensor:
    """Add up presence, relevance and, where the phrase fits, the box."""
    logits, boxes, relevance = net(batch.patches, batch.texts)
    presence = F.binary_cross_entropy_with_logits(logits, batch.fits)
    patches = F.binary_cross_entropy_with_logits(relevance, batch.relevant)
    right = batch.fits > 0
    return presence + patches + 3 * F.l1_loss(boxes[right], batch.boxes[right])


def _fit(course: Course, net: DetectorNet, frozen: Frozen, say: Say, size: int = 2500) -> None:
    """Train until the course's time is over; views are rendered once, a few are exchanged each step."""
    rng, noise = random.Random(course.step + 7), torch.Generator().manual_seed(course.step + 7)
    start = FIRST_INDEX + 10 * course.step
    views = [make_view(training_rng(start + index)) for index in range(size)]
    for step in course.steps():
        for index in range(4):
            fresh = 4 * step + index
            views[fresh % size] = make_view(training_rng(start + size + fresh))
        chosen = rng.sample(views, BATCH)
        loss = _loss_of(net, _assemble(frozen, chosen, [ask(rng, view) for view in chosen], noise))
        course.descend(loss)
        if step % 50 == 0:
            say(f"step {step} seconds {course.seconds:.0f} loss {loss:.3f}")


@torch.no_grad()
def _examine(
    net: DetectorNet, frozen: Frozen, rngs: Sequence[random.Random], worn: bool
) -> dict[str, Tensor]:
    """Return logits, truth and box overlap over fresh views."""
    views = [make_view(rng) for rng in rngs]
    asked = [ask(rng, view) for rng, view in zip(rngs, views, strict=True)]
    batch = _assemble(frozen, views, asked, torch.Generator().manual_seed(1) if worn else None)
    logits, boxes, _ = net(batch.patches, batch.texts)
    return {"logits": logits, "fits": batch.fits, "overlap": _overlap(boxes, batch.boxes)}


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


def _expected_error(probabilities: NDArray[np.float32], fits: NDArray[np.float32], bins: int = 10) -> float:
    """Return the expected calibration error over equal-width bins of the probability."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = [
        (place == b).mean() * abs(probabilities[place == b].mean() - fits[place == b].mean())
        for b in set(place.tolist())
    ]
    return float(sum(gaps))


def _figures_of(found: dict[str, Tensor], scale: float, shift: float) -> dict[str, float]:
    """Return precision, recall, calibration error and mean box overlap at probability .5."""
    p = (found["logits"] * scale + shift).sigmoid()
    seen, fits = p >= 0.5, found["fits"] > 0
    both = (seen & fits).sum()
    return {
        "precision": float(both / seen.sum()),
        "recall": float(both / fits.sum()),
        "expected calibration error": _expected_error(p.numpy(), found["fits"].numpy()),
        "box overlap (IoU)": float(found["overlap"][fits].mean()),
    }


def _known_words() -> list[str]:
    """Return every word that the encoder met in training."""
    names = " ".join(s.name for s in TAUGHT)
    places = " ".join(words for all_words in PLACES.values() for words in all_words)
    words = f"{names} {places} {' '.join((*KINDS, *PARTS.values(), *PALETTE, *PATTERNS))} a an photo of with"
    return sorted(set(words.split()))


def train(minutes: float, resume: bool, say: Say) -> None:
    """Train the detector for `minutes` in all, calibrate them and write their folder."""
    torch.manual_seed(4)
    torch.set_num_threads(1)
    frozen, net = Frozen(), DetectorNet(**NET)
    course = Course("detector", net, minutes, RATE)
    if resume:
        course.resume()
    _fit(course, net, frozen, say)
    _write(course, net, frozen, say)


def _write(course: Course, net: DetectorNet, frozen: Frozen, say: Say, count: int = 1500) -> None:
    """Calibrate, measure and write weights, configuration and card."""
    from safetensors.torch import save_file

    rngs = [training_rng(CALIBRATION_INDEX + index) for index in range(count)]
    found = _examine(net, frozen, rngs, worn=True)
    scale, shift = _calibrate(found["logits"], found["fits"])
    config = {
        "encoder": checksum(ENCODER),
        "net": NET,
        "calibration": {"scale": scale, "shift": shift},
        "words": _known_words(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, FOLDER / "model.safetensors")
    figures = measure(net, frozen, scale, shift)
    for name, (figure, bar) in figures.items():
        say(f"{name}: {figure} (bar {bar})")
    write_card(FOLDER, "Pocket concept detector", __doc__ or "", course, section(figures))


def measure(net: DetectorNet, frozen: Frozen, scale: float, shift: float, count: int = COUNT) -> Figures:
    """Measure the detector on held-out pictures, clean and worn; each is asked about in several phrases."""
    figures = {}
    for worn in (False, True):
        held_out = _examine(net, frozen, [held_out_rng(20_000 + index) for index in range(count)], worn)
        for name, figure in _figures_of(held_out, scale, shift).items():
            bar = "-" if worn else BARS.get(name, "-")
            figures[f"{name}, {'worn' if worn else 'clean'} pictures"] = (f"{figure:.3f}", bar)
    return figures


def section(figures: Figures) -> str:
    """Write the card's section of figures."""
    return figures_section(figures, f"{COUNT:,} pictures", "python -m pleinair.evals.pocket.models")
