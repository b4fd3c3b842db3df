"""Trained part of a reflective retriever: a small MLP at the end of a frozen vision tower."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Head(nn.Module):
    """MLP from embeddings [n, dim] to embeddings of length 1: x + down(gelu(up(x))).

    Untrained it is the identity. The sum is our choice: the paper says "a simple MLP layer".
    """

    def __init__(self, dim: int, width: int, seed: int = 0) -> None:
        """Create the layers, `width` units wide; the same seed gives the same weights."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.up = nn.Linear(dim, width)
            self.down = nn.Linear(width, dim)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Transform unit vectors [n, dim]."""
        change: Tensor = self.down(functional.gelu(self.up(embeddings)))
        return functional.normalize(embeddings + change, dim=-1)
