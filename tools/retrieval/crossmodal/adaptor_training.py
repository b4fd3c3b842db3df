"""Train the dense adaptor on pictures with captions (Zhu et al. 2025, arXiv v2, section 3.2 and appendix).

InfoNCE at τ .07, Adam at 5e-5, the rate times .6 every three epochs; positives are summed inside the
logarithm, as in the paper's equation. The negatives of a sub-query are the other pictures of the batch *under
the same sub-query*. The paper only says "mismatched pairs"; those of another text teach nothing about
pictures, since v is computed from the text and can copy it. Epochs and batch are not published. Not covered:
pictures that show a sub-query which their caption leaves out; they count as negatives.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pleinair.tools.crossmodal import list_subqueries
from pleinair.tools.retrieval.crossmodal.adaptor import AdaptorNet, Config, Shape, Tower, save
from pleinair.tools.retrieval.crossmodal.sparse import satisfaction
from pleinair.tools.types import BadInput, Refused

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from PIL.Image import Image

TAU = 0.07
RATE, STEP, GAMMA = 5e-5, 3, 0.6
IN_MEMORY = 2 * 2**30  # bytes of features that are kept instead of computed in every epoch
SUBQUERIES = "subqueries.jsonl"


@dataclass(frozen=True, slots=True)
class Example:
    """Pair a picture with its caption and the caption's sub-queries."""

    id: str
    caption: str
    subqueries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """Say how to train; the paper's values where it gives any."""

    epochs: int = 12
    learning_rate: float = RATE
    batch: int = 64  # pictures, and sub-queries at most
    seed: int = 0


class Bank:
    """Give pictures' patch features, in half precision; all kept where they fit in memory."""

    def __init__(self, tower: Tower, open: Callable[[str], Image], ids: Sequence[str]) -> None:
        self._tower, self._open = tower, open
        first = self._features(ids[:1])
        self.channels = first.shape[2]
        self._kept: dict[str, Tensor] | None = {} if first.nbytes * len(ids) <= IN_MEMORY else None

    def features(self, ids: Sequence[str]) -> Tensor:
        """Return float32 [n, patches, channels]."""
        if self._kept is None:
            return self._features(ids).float()
        if new := [id for id in ids if id not in self._kept]:
            self._kept |= dict(zip(new, self._features(new), strict=True))
        return torch.stack([self._kept[id] for id in ids]).float()

    def _features(self, ids: Sequence[str]) -> Tensor:
        return torch.from_numpy(self._tower.encode_patches([self._open(id) for id in ids])).half()


def break_down(
    captions: Mapping[str, str], folder: Path, model: BaseChatModel, most: int | None = None
) -> Generator[Example | None, None, None]:
    """Yield a picture's example, or None where the model declined its caption or may not be asked.

    `captions` are by picture id, and `most` is how many questions may be put. Each answer is a line of
    `subqueries.jsonl` in `folder` as soon as it is paid for, and is not asked for again, so a stopped
    breakdown goes on.
    """
    known = _read_subqueries(folder / SUBQUERIES)
    folder.mkdir(parents=True, exist_ok=True)
    asked = 0
    with (folder / SUBQUERIES).open("a", encoding="utf-8") as file:
        file.write("\n")  # ends a line that was cut off
        for id, caption in captions.items():
            if caption not in known and (most is None or asked < most):
                asked, known[caption] = asked + 1, _ask(caption, model)
                file.write(json.dumps({"caption": caption, "subqueries": known[caption]}) + "\n")
                file.flush()
            yield Example(id, caption, known[caption]) if known.get(caption) else None


def _ask(caption: str, model: BaseChatModel) -> tuple[str, ...]:
    """Break one caption down; nothing where the model declines."""
    try:
        return tuple(list_subqueries(caption, model=model)[0])
    except Refused:
        return ()


def _read_subqueries(path: Path) -> dict[str, tuple[str, ...]]:
    """Read what was answered before, by caption; a line that was cut off is asked for again."""
    known: dict[str, tuple[str, ...]] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
            known[record["caption"]] = tuple(record["subqueries"])
        except (ValueError, LookupError, TypeError):
            continue
    return known


def train(
    examples: Sequence[Example],
    folder: Path,
    *,
    tower: Tower,
    open: Callable[[str], Image],
    course: Course = Course(),
) -> Iterator[float]:
    """Train an adaptor, write it to `folder` after every epoch and yield the epoch's mean loss.

    Args:
        examples: pictures with sub-queries, two at least.
        folder: for the checkpoint.
        tower: the frozen encoder.
        open: opens a picture by its id.
        course: epochs, rate, batch and seed; the same ones on the same machine give the same weights.

    Raises:
        BadInput: fewer than two examples.
    """
    if len(examples) < 2:
        raise BadInput(f"{len(examples)} pictures have sub-queries in their captions, wanted 2 or more.")
    bank = Bank(tower, open, [one.id for one in examples])
    torch.manual_seed(course.seed)
    shape = Shape.of(bank.channels, tower.encode_text(["a"]).shape[1])
    net = AdaptorNet(shape).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=course.learning_rate)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, STEP, GAMMA)
    losses: list[float] = []
    for epoch in range(course.epochs):
        batches = _shuffled(examples, course.batch, random.Random(f"{course.seed}/{epoch}"))
        steps = [_step(net, optimizer, tower, bank, batch, course.batch) for batch in batches]
        scheduler.step()
        losses.append(float(np.mean(steps)))
        save(folder, net, Config(encoder=tower.id, shape=shape, training=_facts(course, examples, losses)))
        yield losses[-1]


def _shuffled(examples: Sequence[Example], batch: int, rng: random.Random) -> list[list[Example]]:
    """Cut the examples, in a new order, into batches; a last one of a single picture is left out."""
    order = rng.sample(examples, len(examples))
    cut = [order[start : start + batch] for start in range(0, len(order), batch)]
    return [one for one in cut if len(one) > 1]


def _step(
    net: AdaptorNet,
    optimizer: torch.optim.Optimizer,
    tower: Tower,
    bank: Bank,
    batch: Sequence[Example],
    most: int,
) -> float:
    """Take one step and return its loss."""
    texts = list(dict.fromkeys(one for example in batch for one in example.subqueries))[:most]
    asked = torch.from_numpy(tower.encode_text(texts))
    cosines = net.cosines(net.gather(bank.features([one.id for one in batch])), asked)
    loss = contrast(cosines, matches(batch, texts))
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def matches(batch: Sequence[Example], texts: Sequence[str]) -> Tensor:
    """Tell which picture has which text, [n, t]: as its own sub-query, or in its caption."""
    contained = torch.tensor(satisfaction([one.caption for one in batch], texts))
    own = torch.tensor([[text in one.subqueries for text in texts] for one in batch])
    return contained | own


def contrast(cosines: Tensor, positive: Tensor, tau: float = TAU) -> Tensor:
    """Give the mean over texts of −log Σ⁺ exp(cos/τ) / Σ exp(cos/τ), both sums over the batch's pictures.

    An adaptor that copies the text gives every picture the same cosine, and pays log(pictures / positives).
    """
    scaled = cosines / tau
    own = scaled.masked_fill(~positive, float("-inf"))
    return (scaled.logsumexp(dim=0) - own.logsumexp(dim=0)).mean()


def _facts(course: Course, examples: Sequence[Example], losses: Sequence[float]) -> dict[str, object]:
    """Say how a checkpoint came about."""
    return {
        "pictures": len(examples),
        "epochs": len(losses),
        "batch": course.batch,
        "learning_rate": course.learning_rate,
        "step": STEP,
        "gamma": GAMMA,
        "tau": TAU,
        "seed": course.seed,
        "losses": [round(one, 4) for one in losses],
    }
