"""Train the dense adaptor on images with captions (Zhu et al. 2025, arXiv v2, section 3.2 and appendix).

InfoNCE at τ .07, Adam at 5e-5, the rate times .6 every three epochs; positives are summed inside the
logarithm, as in the paper's equation. The negatives of a sub-query are the other images of the batch *under
the same sub-query*. The paper only says "mismatched pairs"; those of another text teach nothing about images,
since v is computed from the text and can copy it. Epochs and batch are not published. Not covered: images
that show a sub-query which their caption lacks, which count as negatives; several GPUs.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pleinair.tools.callbacks import no_callback
from pleinair.tools.retrieval.crossmodal.adaptor import (
    AdaptorNet,
    Config,
    Shape,
    Tower,
    find_device,
    require_free,
    save,
)
from pleinair.tools.retrieval.crossmodal.examples import Example
from pleinair.tools.retrieval.crossmodal.sparse import satisfaction
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

_TAU = 0.07
_STEP, _GAMMA = 3, 0.6
_CACHE = 2 * 2**30  # bytes of features that are cached instead of computed in every epoch
_BLOCK = 64  # images encoded at a time for the cache
_READERS = 4  # threads that open the images of a batch
CHECKPOINT = "training.safetensors"


@dataclass(frozen=True, slots=True)
class AdaptorOptions:
    """Options of a training; the paper's values if it publishes them."""

    epochs: int = 12
    learning_rate: float = 5e-5
    batch: int = 64  # images, and sub-queries at most
    seed: int = 0
    device: str = "auto"  # a torch device; auto: CUDA if there is one


class _Features:
    """Patch features of images in half precision; all are cached if they fit in memory.

    Their last digits depend on the images beside them, so all are encoded in one order: a training that was
    stopped has the features that it had.
    """

    def __init__(
        self, tower: Tower, open: Callable[[str], Image], ids: Sequence[str], device: torch.device
    ) -> None:
        self._tower, self._open, self.device = tower, open, device
        first = self._encode(ids[:1])
        self.channels = first.shape[2]
        self._cache: dict[str, Tensor] | None = {} if first.nbytes * len(ids) <= _CACHE else None
        self._waiting = list(ids) if self._cache is not None else []

    def of(self, ids: Sequence[str]) -> Tensor:
        """Return float32 [n, patches, channels] on the device."""
        if self._cache is None:
            return self._encode(ids).to(self.device).float()
        return torch.stack([self._cache[id] for id in ids]).to(self.device).float()

    def fill(self) -> bool:
        """Encode the next images for the cache; return False if it has all that it will have."""
        block, self._waiting = self._waiting[:_BLOCK], self._waiting[_BLOCK:]
        if block and self._cache is not None:
            self._cache |= dict(zip(block, self._encode(block), strict=True))
        return bool(block)

    def _encode(self, ids: Sequence[str]) -> Tensor:
        with ThreadPoolExecutor(_READERS) as pool:  # decoding releases the interpreter's lock
            images = list(pool.map(self._open, ids))
        return torch.from_numpy(self._tower.encode_patches(images)).half()


def train(
    examples: Sequence[Example],
    folder: Path,
    *,
    tower: Tower,
    open: Callable[[str], Image],
    options: AdaptorOptions = AdaptorOptions(),
    restart: bool = False,
    on_progress: Callable[[int, int], None] = no_callback,
) -> Iterator[tuple[int, float]]:
    """Train an adaptor, from the checkpoint in `folder` if any; yield each epoch's number and mean loss.

    The adaptor and a checkpoint with Adam's state are written after every epoch. An epoch's order depends on
    seed and epoch alone, so on a CPU a stopped training ends byte for byte as an uninterrupted one; on a GPU,
    up to the rounding of its kernels. A finished training goes on if more epochs are asked for.

    Args:
        examples: images with sub-queries, at least two.
        folder: for the adaptor and the checkpoint.
        tower: the frozen encoder.
        open: opens an image by its id; called by threads.
        options: epochs, learning rate, batch, seed and device.
        restart: replace what is in the folder instead of continuing.
        on_progress: receives the batches done and in total, of all epochs; may raise to stop.

    Raises:
        BadInput: fewer than two examples, or a folder with an adaptor of another training.
    """
    if len(examples) < 2:
        raise BadInput(f"{len(examples)} images have sub-queries in their captions; accepted: 2 or more.")
    run = _Run(examples, folder, tower, open, options)
    losses = [] if restart else run.resume()
    orders = [_shuffle(examples, options, epoch) for epoch in range(options.epochs)]
    total, done = sum(map(len, orders)), sum(map(len, orders[: len(losses)]))
    while done < total and run.features.fill():
        on_progress(done, total)
    for order in orders[len(losses) :]:
        run.set_rate(len(losses))
        steps = []
        for batch in order:
            on_progress(done, total)
            steps.append(run.step(batch))
            done += 1
        losses.append(float(np.mean(steps)))
        run.save(losses)
        yield len(losses), losses[-1]
    on_progress(total, total)


class _Run:
    """State of a training: the network and its optimizer, with what they are trained on."""

    def __init__(
        self,
        examples: Sequence[Example],
        folder: Path,
        tower: Tower,
        open: Callable[[str], Image],
        options: AdaptorOptions,
    ) -> None:
        self._examples, self._folder, self._tower, self._options = examples, folder, tower, options
        device = find_device(options.device)
        self.features = _Features(tower, open, [example.id for example in examples], device)
        torch.manual_seed(options.seed)
        names = list(dict.fromkeys(text for example in examples for text in example.subqueries))
        self._rows = {text: row for row, text in enumerate(names)}
        self._texts = torch.from_numpy(tower.encode_text(names))  # all in one order, as the images
        self._shape = Shape.of(self.features.channels, self._texts.shape[1])
        self._net = AdaptorNet(self._shape).to(device).train()
        self._optimizer = torch.optim.Adam(self._net.parameters(), lr=options.learning_rate)

    def set_rate(self, epoch: int) -> None:
        """Set the learning rate of an epoch, counted from 0."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._options.learning_rate * _GAMMA ** (epoch // _STEP)

    def step(self, batch: Sequence[Example]) -> float:
        """Train on one batch; return its loss."""
        device = self.features.device
        names = dict.fromkeys(text for example in batch for text in example.subqueries)
        texts = list(names)[: self._options.batch]
        embedded = self._texts[[self._rows[text] for text in texts]].to(device)
        tokens = self._net.gather(self.features.of([example.id for example in batch]))
        loss = contrastive_loss(self._net.cosines(tokens, embedded), positives(batch, texts).to(device))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return float(loss.detach())

    def save(self, losses: Sequence[float]) -> None:
        """Write the checkpoint, then the adaptor; a training that is stopped in between writes it again."""
        from safetensors.torch import save as serialize

        tensors = {f"net.{name}": value for name, value in self._net.state_dict().items()}
        for number, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in state.items()}
        stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        facts = {"training": self._identity(), "losses": list(losses)}
        metadata = {"facts": json.dumps(facts)}  # one key, as the file has several in any order
        write_whole(self._folder / CHECKPOINT, serialize(stored, metadata))
        self._save_adaptor(losses)

    def resume(self) -> list[float]:
        """Continue from the folder's checkpoint; return the losses of its epochs, none without one."""
        checkpoint = _read_checkpoint(self._folder, self._identity())
        if checkpoint is None:
            return []
        tensors, losses = checkpoint
        weights: dict[str, Tensor] = {}
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            if part == "net":
                weights[name] = value
            else:
                number, _, name = name.partition(".")
                states.setdefault(int(number), {})[name] = value
        self._net.load_state_dict(weights)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": states, "param_groups": groups})
        self._save_adaptor(losses)
        return losses

    def _save_adaptor(self, losses: Sequence[float]) -> None:
        facts = {name: value for name, value in asdict(self._options).items() if name != "device"}
        facts |= {"step": _STEP, "gamma": _GAMMA, "tau": _TAU, "pictures": len(self._examples)}
        facts |= {"epochs": len(losses), "losses": [round(loss, 4) for loss in losses]}
        save(self._folder, self._net, Config(encoder=self._tower.id, shape=self._shape, training=facts))

    def _identity(self) -> str:
        """Return a digest of what a checkpoint depends on: all but the number of epochs and the device."""
        options = self._options
        facts = [self._tower.id, options.learning_rate, options.batch, options.seed, _STEP, _GAMMA, _TAU]
        rows = [[example.id, example.caption, example.subqueries] for example in self._examples]
        return hashlib.sha256(json.dumps([facts, rows]).encode()).hexdigest()


def _read_checkpoint(folder: Path, identity: str) -> tuple[dict[str, Tensor], list[float]] | None:
    """Read a checkpoint's tensors and losses, None without one; raise `BadInput` for another training's."""
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT
    try:
        if path.is_file():
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {}).get("facts", "{}"))
                if facts.get("training") == identity:
                    names = file.keys()
                    return {name: file.get_tensor(name) for name in names}, facts["losses"]
    except SafetensorError as error:
        remedy = "Train from the start with --restart."
        raise BadInput(f"The checkpoint in {folder} is damaged ({error}).", remedy) from error
    require_free(folder)
    return None


def _shuffle(examples: Sequence[Example], options: AdaptorOptions, epoch: int) -> list[list[Example]]:
    """Split the examples, shuffled for an epoch, into batches; a last one of a single image is dropped."""
    order = random.Random(f"{options.seed}/{epoch}").sample(examples, len(examples))
    batches = [order[start : start + options.batch] for start in range(0, len(order), options.batch)]
    return [batch for batch in batches if len(batch) > 1]


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
