"""Train the MLP of a reflective retriever (RealRAG, Lyu et al., ICML 2025, equations 4 to 8).

Text tower and vision tower are frozen and their embeddings made before, so an epoch is a few matrix products
on the CPU. Not covered: other optimisers than Adam, GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from pleinair.tools.retrieval.realrag.data import Lesson
from pleinair.tools.retrieval.realrag.head import Head
from pleinair.tools.retrieval.realrag.reflective import (
    EVERY,
    Card,
    Choices,
    checkpoint,
    epochs_done,
    load_tensors,
    save_card,
)
from pleinair.tools.storage.files import write_whole


def train(lesson: Lesson, card: Card, folder: Path) -> Iterator[tuple[int, float]]:
    """Train from the newest checkpoint in `folder` to the last epoch; yield each one's number and mean loss.

    The order of an epoch depends on seed and epoch alone, and a checkpoint holds Adam's memory, so a training
    that was stopped ends as it would have. Raise `BadInput` when the folder holds another training.
    """
    save_card(folder, card)
    choices = card.choices
    head = Head(card.dim, choices.width, choices.seed)
    optimiser = torch.optim.Adam(head.parameters(), lr=choices.learning_rate)
    done = max(epochs_done(folder), default=0)
    if done:
        _restore(checkpoint(folder, done), head, optimiser)
    data = Data(lesson, reflective=choices.loss == "reflective")
    for epoch in range(done + 1, choices.epochs + 1):
        loss = _run_epoch(head, optimiser, data, choices, epoch)
        if epoch % EVERY == 0 or epoch == choices.epochs:
            write_whole(folder / f"epoch-{epoch:03d}.safetensors", save(_state_of(head, optimiser)))
        yield epoch, loss


class Data:
    """Hold a lesson as tensors and make batches of it."""

    def __init__(self, lesson: Lesson, *, reflective: bool) -> None:
        self.rows = torch.from_numpy(lesson.rows)
        self.texts = torch.from_numpy(lesson.texts)
        self.pool = torch.from_numpy(np.ascontiguousarray(lesson.pool))
        self.contents, self.labels = torch.from_numpy(lesson.contents), torch.from_numpy(lesson.labels)
        self.negatives = torch.from_numpy(lesson.negatives) if reflective else None

    def loss(self, head: Head, batch: Tensor, choices: Choices) -> Tensor:
        """Compute the mean loss of the pairs whose numbers are given, [b]."""
        rows, negatives, present = self.rows[batch], None, None
        if self.negatives is not None:
            found = self.negatives[batch]
            present = found >= 0
            negatives = head(self.pool[found.clamp(min=0)])
        return reflective_loss(
            self.texts[batch],
            head(self.pool[rows]),
            negatives,
            others=self.others(rows, choices.collisions),
            present=present,
            tau=choices.tau,
            tau_on_reflective=choices.tau_on_reflective,
        )

    def others(self, rows: Tensor, collisions: str) -> Tensor:
        """Tell which pictures of a batch may be a pair's negatives: [b, b], false on the diagonal."""
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

    P = exp(q · pos / tau); D_nor sums exp(q · other / tau) over the batch's other pictures; D_ref is the
    exponential of `reflective_logits`. Without negatives it is plain InfoNCE from text to image.

    Args:
        texts: the prompts q, [b, dim], of length 1 like all rows.
        images: their positives, [b, dim].
        negatives: the reflective negatives, [b, dim].
        others: which of the batch's pictures count in D_nor, [b, b].
        present: which reflective negatives count, [b]; all of them when None.
        tau: temperature, over 0.
        tau_on_reflective: false gives equation 7 as printed.
    """
    logits = texts @ images.T / tau
    positive = logits.diagonal()
    terms = [positive[:, None], logits.masked_fill(~others, -torch.inf)]
    if negatives is not None:
        own = reflective_logits(texts, negatives, tau if tau_on_reflective else 1.0)
        terms.append(own if present is None else own.masked_fill(~present[:, None], -torch.inf))
    return (torch.logsumexp(torch.cat(terms, 1), 1) - positive).mean()


def reflective_logits(texts: Tensor, negatives: Tensor, tau: float) -> Tensor:
    """Give the logarithm of D_ref, [b, 1]; at `tau` 1, as printed, D_ref is at most e."""
    return (texts * negatives).sum(1, keepdim=True) / tau


def _run_epoch(
    head: Head, optimiser: torch.optim.Optimizer, data: Data, choices: Choices, epoch: int
) -> float:
    """See every pair once, in an order that follows from seed and epoch; return the mean loss."""
    generator = torch.Generator().manual_seed(choices.seed * 1000 + epoch)
    order, total = torch.randperm(len(data.rows), generator=generator), 0.0
    for batch in torch.split(order, choices.batch):
        loss = data.loss(head, batch, choices)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach()) * len(batch)
    return total / len(order)


def _state_of(head: Head, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name all that a training needs to go on: weights, and Adam's memory by parameter."""
    weights = {f"head.{name}": value for name, value in head.state_dict().items()}
    memory = optimiser.state_dict()["state"]
    return weights | {
        f"adam.{number}.{name}": value for number, kept in memory.items() for name, value in kept.items()
    }


def _restore(path: Path, head: Head, optimiser: torch.optim.Optimizer) -> None:
    """Put head and optimiser back to where a checkpoint has them."""
    memory: dict[int, dict[str, Tensor]] = {}
    weights: dict[str, Tensor] = {}
    for key, value in load_tensors(path).items():
        part, _, name = key.partition(".")
        if part == "head":
            weights[name] = value
        else:
            number, _, name = name.partition(".")
            memory.setdefault(int(number), {})[name] = value
    head.load_state_dict(weights)
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": memory, "param_groups": groups})
