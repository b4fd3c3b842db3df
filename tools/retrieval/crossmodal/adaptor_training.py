"""Train the dense adaptor on images with captions (Zhu et al. 2025, arXiv v2, section 3.2 and appendix).

InfoNCE at τ .07, Adam at 5e-5, the rate times .6 every three epochs; positives are summed inside the
logarithm, as in the paper's equation. The negatives of a sub-query are the other images of the batch *under
the same sub-query*. The paper only says "mismatched pairs"; those of another text teach nothing about images,
since v is computed from the text and can copy it. Epochs and batch are not published. Not covered: images
that show a sub-query which their caption lacks; they count as negatives.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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

_TAU = 0.07
_STEP, _GAMMA = 3, 0.6
_CACHE = 2 * 2**30  # bytes of features that are cached instead of computed in every epoch
_SUBQUERIES = "subqueries.jsonl"


@dataclass(frozen=True, slots=True)
class Example:
    """Image with its caption and the caption's sub-queries."""

    id: str
    caption: str
    subqueries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AdaptorOptions:
    """Options of a training; the paper's values if it publishes them."""

    epochs: int = 12
    learning_rate: float = 5e-5
    batch: int = 64  # images, and sub-queries at most
    seed: int = 0


class _Features:
    """Patch features of images in half precision; all are cached if they fit in memory."""

    def __init__(self, tower: Tower, open: Callable[[str], Image], ids: Sequence[str]) -> None:
        self._tower, self._open = tower, open
        first = self._encode(ids[:1])
        self.channels = first.shape[2]
        self._cache: dict[str, Tensor] | None = {} if first.nbytes * len(ids) <= _CACHE else None

    def of(self, ids: Sequence[str]) -> Tensor:
        """Return float32 [n, patches, channels]."""
        if self._cache is None:
            return self._encode(ids).float()
        if missing := [id for id in ids if id not in self._cache]:
            self._cache |= dict(zip(missing, self._encode(missing), strict=True))
        return torch.stack([self._cache[id] for id in ids]).float()

    def _encode(self, ids: Sequence[str]) -> Tensor:
        return torch.from_numpy(self._tower.encode_patches([self._open(id) for id in ids])).half()


def make_examples(
    captions: Mapping[str, str], folder: Path, model: BaseChatModel, max_calls: int | None = None
) -> Generator[Example | None, None, None]:
    """Yield each image's example, or None if the model declined its caption or no MLLM call is left.

    `captions` are by image id. Each answer is a line of `subqueries.jsonl` in `folder` as soon as it is paid
    for, and is not requested again, so a stopped run continues.
    """
    answers = _read_answers(folder / _SUBQUERIES)
    folder.mkdir(parents=True, exist_ok=True)
    calls = 0
    with (folder / _SUBQUERIES).open("a", encoding="utf-8") as file:
        file.write("\n")  # ends a truncated line
        for id, caption in captions.items():
            if caption not in answers and (max_calls is None or calls < max_calls):
                calls, answers[caption] = calls + 1, _list_subqueries(caption, model)
                file.write(json.dumps({"caption": caption, "subqueries": answers[caption]}) + "\n")
                file.flush()
            yield Example(id, caption, answers[caption]) if answers.get(caption) else None


def _list_subqueries(caption: str, model: BaseChatModel) -> tuple[str, ...]:
    try:
        return tuple(list_subqueries(caption, model=model)[0])
    except Refused:
        return ()


def _read_answers(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the stored answers by caption; truncated lines are ignored."""
    answers: dict[str, tuple[str, ...]] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
            answers[record["caption"]] = tuple(record["subqueries"])
        except (ValueError, LookupError, TypeError):
            continue
    return answers


def train(
    examples: Sequence[Example],
    folder: Path,
    *,
    tower: Tower,
    open: Callable[[str], Image],
    options: AdaptorOptions = AdaptorOptions(),
) -> Iterator[float]:
    """Train an adaptor, write it to `folder` after every epoch and yield the epoch's mean loss.

    The same options on the same machine give the same weights.

    Args:
        examples: images with sub-queries, at least two.
        folder: for the checkpoint.
        tower: the frozen encoder.
        open: opens an image by its id.
        options: epochs, learning rate, batch and seed.

    Raises:
        BadInput: fewer than two examples.
    """
    if len(examples) < 2:
        raise BadInput(f"{len(examples)} images have sub-queries in their captions; accepted: 2 or more.")
    features = _Features(tower, open, [example.id for example in examples])
    torch.manual_seed(options.seed)
    shape = Shape.of(features.channels, tower.encode_text(["a"]).shape[1])
    net = AdaptorNet(shape).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=options.learning_rate)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, _STEP, _GAMMA)
    losses: list[float] = []
    for epoch in range(options.epochs):
        batches = _shuffle(examples, options.batch, random.Random(f"{options.seed}/{epoch}"))
        steps = [_step(net, optimizer, tower, features, batch, options.batch) for batch in batches]
        scheduler.step()
        losses.append(float(np.mean(steps)))
        facts = _facts(options, examples, losses)
        save(folder, net, Config(encoder=tower.id, shape=shape, training=facts))
        yield losses[-1]


def _shuffle(examples: Sequence[Example], size: int, rng: random.Random) -> list[list[Example]]:
    """Split the shuffled examples into batches; a last one of a single image is dropped."""
    order = rng.sample(examples, len(examples))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return [batch for batch in batches if len(batch) > 1]


def _step(
    net: AdaptorNet,
    optimizer: torch.optim.Optimizer,
    tower: Tower,
    features: _Features,
    batch: Sequence[Example],
    max_texts: int,
) -> float:
    texts = list(dict.fromkeys(text for example in batch for text in example.subqueries))[:max_texts]
    embedded = torch.from_numpy(tower.encode_text(texts))
    cosines = net.cosines(net.gather(features.of([example.id for example in batch])), embedded)
    loss = contrastive_loss(cosines, positives(batch, texts))
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def positives(batch: Sequence[Example], texts: Sequence[str]) -> Tensor:
    """Return which image has which text, [n, t]: as its own sub-query, or in its caption."""
    in_caption = torch.tensor(satisfaction([example.caption for example in batch], texts))
    in_subqueries = torch.tensor([[text in example.subqueries for text in texts] for example in batch])
    return in_caption | in_subqueries


def contrastive_loss(cosines: Tensor, positive: Tensor, tau: float = _TAU) -> Tensor:
    """Compute the mean over texts of −log Σ⁺ exp(cos/τ) / Σ exp(cos/τ), both sums over the batch's images.

    An adaptor that copies the text has the same cosine for every image, and a loss of log(images /
    positives).
    """
    scaled = cosines / tau
    matching = scaled.masked_fill(~positive, float("-inf"))
    return (scaled.logsumexp(dim=0) - matching.logsumexp(dim=0)).mean()


def _facts(
    options: AdaptorOptions, examples: Sequence[Example], losses: Sequence[float]
) -> dict[str, object]:
    progress = {"pictures": len(examples), "epochs": len(losses), "losses": [round(x, 4) for x in losses]}
    return {**asdict(options), "step": _STEP, "gamma": _GAMMA, "tau": _TAU, **progress}
