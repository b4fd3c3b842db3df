"""Train the MLP of a reflective retriever (RealRAG, Lyu et al., ICML 2025, equations 4 to 8).

Text tower and vision tower are frozen and their embeddings computed before, so an epoch is a few matrix
products. The embeddings stay in the host's memory, and a batch at a time goes to the device. Not covered:
other optimisers than Adam, several GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from pleinair.tools.retrieval.realrag.data import TrainingSet
from pleinair.tools.retrieval.realrag.head import Head
from pleinair.tools.retrieval.realrag.reflective import (
    CHECKPOINT_EPOCHS,
    ReflectiveOptions,
    TrainingConfig,
    checkpoint,
    epochs_done,
    load_tensors,
    save_config,
)
from pleinair.tools.storage.files import write_whole


def train(
    training_set: TrainingSet, config: TrainingConfig, folder: Path, device: str = "cpu"
) -> Iterator[tuple[int, float]]:
    """Train from the newest checkpoint in `folder` to the last epoch; yield each one's number and mean loss.

    The order of an epoch depends on seed and epoch alone, and a checkpoint includes Adam's state, so a
    stopped training ends as it would have, on the same device. Raise `BadInput` if the folder has another
    training.
    """
    save_config(folder, config)
    options = config.choices
    head = Head(config.dim, options.width, options.seed).to(device)
    optimiser = torch.optim.Adam(head.parameters(), lr=options.learning_rate)
    done = max(epochs_done(folder), default=0)
    if done:
        _restore(checkpoint(folder, done), head, optimiser)
    pairs = PairTensors(training_set, reflective=options.loss == "reflective")
    for epoch in range(done + 1, options.epochs + 1):
        loss = _run_epoch(head, optimiser, pairs, options, epoch)
        if epoch % CHECKPOINT_EPOCHS == 0 or epoch == options.epochs:
            write_whole(folder / f"epoch-{epoch:03d}.safetensors", save(_state_of(head, optimiser)))
        yield epoch, loss


class PairTensors:
    """Training set as tensors, from which the loss of a batch of pairs is computed."""

    def __init__(self, training_set: TrainingSet, *, reflective: bool) -> None:
        self.rows = torch.from_numpy(training_set.rows)
        self.texts = torch.from_numpy(training_set.texts)
        self.prompts = torch.from_numpy(training_set.prompts)
        self.pool = torch.from_numpy(np.ascontiguousarray(training_set.pool))
        self.contents = torch.from_numpy(training_set.contents)
        self.labels = torch.from_numpy(training_set.labels)
        self.negatives = torch.from_numpy(training_set.negatives) if reflective else None

    def loss(self, head: Head, batch: Tensor, options: ReflectiveOptions) -> Tensor:
        """Compute the mean loss of the pairs with the numbers `batch`, [b], on the MLP's device."""
        device = head.up.weight.device
        rows, negatives, present = self.rows[batch], None, None
        if self.negatives is not None:
            numbers = self.negatives[batch]
            present = (numbers >= 0).to(device)
            negatives = head(self.pool[numbers.clamp(min=0)].to(device))
        return reflective_loss(
            self.texts[self.prompts[batch]].to(device),
            head(self.pool[rows].to(device)),
            negatives,
            others=self.others(rows, options.collisions).to(device),
            present=present,
            tau=options.tau,
            tau_on_reflective=options.tau_on_reflective,
        )

    def others(self, rows: Tensor, collisions: str) -> Tensor:
        """Return which images of a batch may be a pair's negatives: [b, b], false on the diagonal."""
        allowed = self.contents[rows][:, None] != self.contents[rows][None]
        if collisions == "class":
            allowed &= self.labels[rows][:, None] != self.labels[rows][None]
        return allowed


def reflective_loss(
    texts: Tensor,
    images: Tensor,
    negatives: Tensor | None,
    *,
    others: Tensor,
    present: Tensor | None = None,
    tau: float,
    tau_on_reflective: bool = True,
) -> Tensor:
    """Compute equation 8, the mean over a batch of -log(P / (P + D_nor + D_ref)).

    P = exp(q · pos / tau); D_nor sums exp(q · other / tau) over the batch's other images; D_ref is the
    exponential of `reflective_logits`. Without negatives it is plain InfoNCE from text to image.

    Args:
        texts: the prompts q, [b, dim], of length 1 like all rows.
        images: their positives, [b, dim].
        negatives: the reflective negatives, [b, dim].
        others: which of the batch's images count in D_nor, [b, b].
        present: which reflective negatives count, [b]; all of them if None.
        tau: temperature, over 0.
        tau_on_reflective: false computes equation 7 as printed.
    """
    logits = texts @ images.T / tau
    positive = logits.diagonal()
    terms = [positive[:, None], logits.masked_fill(~others, -torch.inf)]
    if negatives is not None:
        reflective = reflective_logits(texts, negatives, tau if tau_on_reflective else 1.0)
        terms.append(reflective if present is None else reflective.masked_fill(~present[:, None], -torch.inf))
    return (torch.logsumexp(torch.cat(terms, 1), 1) - positive).mean()


def reflective_logits(texts: Tensor, negatives: Tensor, tau: float) -> Tensor:
    """Compute the logarithm of D_ref, [b, 1]; at `tau` 1, as printed, D_ref is at most e."""
    return (texts * negatives).sum(1, keepdim=True) / tau


def _run_epoch(
    head: Head, optimiser: torch.optim.Optimizer, pairs: PairTensors, options: ReflectiveOptions, epoch: int
) -> float:
    """Train on every pair once, in an order determined by seed and epoch; return the mean loss."""
    generator = torch.Generator().manual_seed(options.seed * 1000 + epoch)
    order, total = torch.randperm(len(pairs.rows), generator=generator), 0.0
    for batch in torch.split(order, options.batch):
        loss = pairs.loss(head, batch, options)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach()) * len(batch)
    return total / len(order)


def _state_of(head: Head, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return all tensors that a training needs to continue: weights, and Adam's state by parameter."""
    tensors = {f"head.{name}": value.cpu() for name, value in head.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": value.cpu() for name, value in state.items()}
    return tensors


def _restore(path: Path, head: Head, optimiser: torch.optim.Optimizer) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    weights: dict[str, Tensor] = {}
    for key, value in load_tensors(path).items():
        part, _, name = key.partition(".")
        if part == "head":
            weights[name] = value
        else:
            number, _, name = name.partition(".")
            states.setdefault(int(number), {})[name] = value
    head.load_state_dict(weights)
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": states, "param_groups": groups})
