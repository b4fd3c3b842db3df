"""Score a picture for a sub-query by a small network over a frozen encoder: Cross-modal RAG's dense stage.

After Zhu et al. 2025 (arXiv v2, section 3.2): learnable tokens attend to the picture's patch features, then
to the sub-query's embedding; an MLP and a LayerNorm give v, and the score is cos(v, t). The paper gives no
sizes, heads or feature layer. Ours: the last layer's patches, four tokens, the encoder's width. As a
sub-query is one vector, on which all attention would fall, a zero stands beside it: so each head can look
away from a text that does not fit the picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError
from torch import Tensor, nn

from pleinair.tools.locks import serialized
from pleinair.tools.model_files.folders import locate
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Value

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Cosines, Features, Vectors

BLOCK = 32  # pictures looked at in one pass
CONFIG, WEIGHTS = "config.json", "model.safetensors"
TRAIN = "`pleinair train adaptor` trains one."


@runtime_checkable
class Tower(Protocol):
    """Encode texts as an `Encoder` does, and pictures patch by patch, with a frozen model."""

    @property
    def id(self) -> str:
        """Name model, weights and preprocessing."""

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, [n, dim]."""

    def encode_patches(self, images: Sequence[Image]) -> Features:
        """Embed pictures patch by patch, [n, patches, channels]."""


class Shape(Value):
    """Fix the network's sizes."""

    channels: int = Field(gt=0)  # of a patch's features
    dim: int = Field(gt=0)  # of a text's embedding, and of v
    tokens: int = Field(default=4, gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)

    @classmethod
    def of(cls, channels: int, dim: int) -> Shape:
        """Give the sizes for an encoder: its own width, heads of 32 numbers."""
        return cls(channels=channels, dim=dim, width=dim, heads=max(dim // 32, 1), hidden=dim)


class Config(Value):
    """Describe a checkpoint; `training` tells how it came about."""

    encoder: str  # the id of the encoder it was trained on; it fits no other
    shape: Shape
    training: dict[str, Any] = {}


class AdaptorNet(nn.Module):
    """Turn patch features and sub-queries into v, one for each pair."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, sides = shape.width, {"batch_first": True}
        self.queries = nn.Parameter(torch.randn(shape.tokens, width) * 0.5)
        self.seen = nn.LayerNorm(shape.channels)
        self.vision = nn.MultiheadAttention(
            width, shape.heads, kdim=shape.channels, vdim=shape.channels, **sides
        )
        self.gathered = nn.LayerNorm(width)
        self.asked = nn.LayerNorm(shape.dim)
        self.text = nn.MultiheadAttention(
            width, shape.heads, kdim=shape.dim, vdim=shape.dim, add_zero_attn=True, **sides
        )
        self.mlp = nn.Sequential(
            nn.Linear(shape.tokens * width, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.dim)
        )
        self.norm = nn.LayerNorm(shape.dim)

    def gather(self, features: Tensor) -> Tensor:
        """Let the tokens look at each picture: [n, patches, channels] to [n, tokens, width]."""
        seen, queries = self.seen(features), self.queries.expand(len(features), -1, -1)
        found: Tensor = self.vision(queries, seen, seen, need_weights=False)[0]
        return queries + found

    def forward(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """Give v of every pair: tokens [n, tokens, width] and texts [t, dim] to [n, t, dim]."""
        n, t = len(tokens), len(texts)
        paired = self.gathered(tokens).repeat_interleave(t, dim=0)
        asked = self.asked(texts).repeat(n, 1)[:, None]
        told: Tensor = self.text(paired, asked, asked, need_weights=False)[0]
        v: Tensor = self.norm(self.mlp((tokens.repeat_interleave(t, dim=0) + told).flatten(1)))
        return v.view(n, t, -1)

    def cosines(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """Give cos(v, t) of every pair, [n, t]."""
        return F.cosine_similarity(self(tokens, texts), texts[None], dim=-1)


class AdaptorScorer:
    """Score by a trained adaptor; implements `Scorer`. What its tokens saw of a picture is kept."""

    def __init__(self, net: AdaptorNet, tower: Tower, open: Callable[[str], Image]) -> None:
        """Take the network, the encoder it was trained on, and what opens a picture by its id."""
        self._net, self._tower, self._open = net.eval(), tower, open
        self._tokens: dict[str, Tensor] = {}

    @torch.inference_mode()
    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines:
        """Give cos(v, t) of every picture for every text, [pictures, texts]."""
        asked = torch.from_numpy(self._tower.encode_text(texts))
        rows = [torch.zeros(0, len(texts))]
        for start in range(0, len(ids), BLOCK):
            tokens = torch.stack(self._look(ids[start : start + BLOCK]))
            rows.append(self._net.cosines(tokens, asked))
        cosines: Cosines = torch.cat(rows).numpy()
        return cosines

    def _look(self, ids: Sequence[str]) -> list[Tensor]:
        if new := [id for id in ids if id not in self._tokens]:
            features = self._tower.encode_patches([self._open(id) for id in new])
            self._tokens |= dict(zip(new, self._net.gather(torch.from_numpy(features)), strict=True))
        return [self._tokens[id] for id in ids]


def open_scorer(folder: str, encoder: object, open: Callable[[str], Image]) -> AdaptorScorer:
    """Open a checkpoint for an encoder; raise `BadInput` where it is none or another encoder's."""
    tower = require_tower(encoder)
    net, config = load(locate(folder))
    if config.encoder != tower.id:
        raise BadInput(
            f"The adaptor in {folder} is of encoder `{config.encoder}`, not of `{tower.id}`.", TRAIN
        )
    return AdaptorScorer(net, tower, open)


def require_tower(encoder: object) -> Tower:
    """Return an encoder that gives patch features; raise `BadInput` for any other."""
    if not isinstance(encoder, Tower):
        raise BadInput("This encoder gives no patch features, which the adaptor needs.", "Take `open_clip`.")
    return encoder


def save(folder: Path, net: AdaptorNet, config: Config) -> None:
    """Write a checkpoint, the weights first; a reader never sees half a file."""
    from safetensors.torch import save as dumped

    weights = {key: tensor.contiguous() for key, tensor in net.state_dict().items()}
    write_whole(folder / WEIGHTS, dumped(weights))
    write_whole(folder / CONFIG, json.dumps(config.model_dump(mode="json"), indent=1).encode())


def load(folder: Path) -> tuple[AdaptorNet, Config]:
    """Read a checkpoint; raise `BadInput` where the folder holds none."""
    from safetensors import SafetensorError
    from safetensors.torch import load as parsed

    try:
        config = Config.model_validate_json((folder / CONFIG).read_bytes())
        net = serialized(AdaptorNet)(config.shape)
        net.load_state_dict(parsed((folder / WEIGHTS).read_bytes()))
    except (OSError, ValidationError, SafetensorError, RuntimeError) as error:
        raise BadInput(f"No adaptor in {folder} ({type(error).__name__}).", TRAIN) from error
    return net.eval(), config
