"""Score images for sub-queries by a small network over a frozen encoder: Cross-modal RAG's dense stage.

After Zhu et al. 2025 (arXiv v2, section 3.2): learnable tokens attend to the image's patch features, then to
the sub-query's embedding; an MLP and a LayerNorm compute v, and the score is cos(v, t). The paper gives no
sizes, heads or feature layer. Ours: the last layer's patches, four tokens, the encoder's width. As a
sub-query is one vector, which would receive all attention, a zero is added beside it: so each head can ignore
a text that does not fit the image. Over CLIP ViT-L/14 it has 7.68 million parameters; the paper counts 7.31
in a row of its table 3, and 5.93 by the difference of two others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError
from torch import Tensor, nn

from pleinair.tools.crossmodal import ADAPTOR_FILES, TRAIN_ADAPTOR
from pleinair.tools.locks import serialized
from pleinair.tools.model_files.folders import locate
from pleinair.tools.retrieval.crossmodal.token_cache import TokenCache
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Value

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Cosines, Features, Vectors

_BLOCK = 32  # images in one pass
_REMEMBERED = 30_000  # images whose tokens are in memory: 370 MB over ViT-L/14
_CONFIG, _WEIGHTS = ADAPTOR_FILES


@runtime_checkable
class Tower(Protocol):
    """Frozen encoder of texts as an `Encoder`, and of images patch by patch."""

    @property
    def id(self) -> str:
        """Return an id of model, weights and preprocessing."""

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, [n, dim]."""

    def encode_patches(self, images: Sequence[Image]) -> Features:
        """Embed images patch by patch, [n, patches, channels]."""


class Shape(Value):
    """Sizes of the network."""

    channels: int = Field(gt=0)  # of a patch's features
    dim: int = Field(gt=0)  # of a text's embedding, and of v
    tokens: int = Field(default=4, gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)

    @classmethod
    def of(cls, channels: int, dim: int) -> Shape:
        """Return the sizes for an encoder: its own width, heads of 32 numbers."""
        return cls(channels=channels, dim=dim, width=dim, heads=max(dim // 32, 1), hidden=dim)


class Config(Value):
    """Configuration of a checkpoint; `training` records how it was trained."""

    encoder: str  # the id of the encoder it was trained on; it fits no other
    shape: Shape
    training: dict[str, Any] = {}


class AdaptorNet(nn.Module):
    """Network from patch features and sub-queries to v, one for each pair; stored weights use these names."""

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
        """Attend to each image with the tokens: [n, patches, channels] to [n, tokens, width]."""
        patches, queries = self.seen(features), self.queries.expand(len(features), -1, -1)
        attended: Tensor = self.vision(queries, patches, patches, need_weights=False)[0]
        return queries + attended

    def forward(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """Compute v of every pair: tokens [n, tokens, width] and texts [t, dim] to [n, t, dim]."""
        n, t = len(tokens), len(texts)
        queries = self.gathered(tokens).repeat_interleave(t, dim=0)
        keys = self.asked(texts).repeat(n, 1)[:, None]
        attended: Tensor = self.text(queries, keys, keys, need_weights=False)[0]
        v: Tensor = self.norm(self.mlp((tokens.repeat_interleave(t, dim=0) + attended).flatten(1)))
        return v.view(n, t, -1)

    def cosines(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """Compute cos(v, t) of every pair, [n, t]."""
        return F.cosine_similarity(self(tokens, texts), texts[None], dim=-1)


class AdaptorScorer:
    """Scorer by a trained adaptor, which encodes an image once: its tokens are cached, on disk if it may."""

    def __init__(
        self,
        net: AdaptorNet,
        tower: Tower,
        open: Callable[[str], Image],
        cache: TokenCache | None = None,
        device: str = "auto",
    ) -> None:
        """Score by the network and its encoder.

        Args:
            net: the trained network.
            tower: the encoder that it was trained on.
            open: reads an image by its id.
            cache: keeps tokens beyond this process.
            device: a torch device; auto: CUDA if there is one.
        """
        self._device = find_device(device)
        self._net, self._tower, self._open, self._cache = net.to(self._device).eval(), tower, open, cache
        self._tokens: dict[str, Tensor] = {}

    @torch.inference_mode()
    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines:
        """Return cos(v, t) of every image for every text, [images, texts]."""
        embedded = torch.from_numpy(self._tower.encode_text(texts)).to(self._device)
        rows = [torch.zeros(0, len(texts))]
        for start in range(0, len(ids), _BLOCK):
            tokens = torch.stack(self._tokens_of(ids[start : start + _BLOCK])).to(self._device)
            rows.append(self._net.cosines(tokens, embedded).cpu())
        cosines: Cosines = torch.cat(rows).numpy()
        return cosines

    def _tokens_of(self, ids: Sequence[str]) -> list[Tensor]:
        tokens = {id: self._tokens[id] for id in ids if id in self._tokens}
        if self._cache and (missing := [id for id in ids if id not in tokens]):
            tokens |= self._cache.read(missing, self._net.queries.shape)
        if missing := [id for id in ids if id not in tokens]:
            features = torch.from_numpy(self._tower.encode_patches([self._open(id) for id in missing]))
            encoded = self._net.gather(features.to(self._device)).cpu()
            tokens |= (new := dict(zip(missing, encoded, strict=True)))
            if self._cache:
                self._cache.write(new)
        if len(self._tokens) > _REMEMBERED:
            self._tokens.clear()
        self._tokens |= tokens
        return [tokens[id] for id in ids]


def find_device(name: str) -> torch.device:
    """Return a torch device, CUDA if there is one for auto; raise `BadInput` for an unknown name."""
    try:
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise BadInput(f"device = {name!r}: no torch device; accepted: auto, cpu, cuda, cuda:1, …") from error


def open_scorer(
    folder: str,
    encoder: object,
    open: Callable[[str], Image],
    cache: Path | None = None,
    stamp: Callable[[str], str] | None = None,
) -> AdaptorScorer:
    """Open a checkpoint for an encoder; raise `BadInput` if it is none or another encoder's.

    With `cache`, a file, the tokens of images are kept in it under the encoder, the adaptor's weights and
    `stamp`, which identifies an image's content by its id.
    """
    tower = require_tower(encoder)
    place = locate(folder)
    net, config = load(place)
    if config.encoder != tower.id:
        raise BadInput(
            f"The adaptor in {folder} is of encoder `{config.encoder}`, not of `{tower.id}`.", TRAIN_ADAPTOR
        )
    if cache is None or stamp is None:
        return AdaptorScorer(net, tower, open)
    weights = hashlib.sha256((place / _WEIGHTS).read_bytes()).hexdigest()
    return AdaptorScorer(net, tower, open, TokenCache(cache, f"{tower.id}\n{weights}", stamp))


def require_tower(encoder: object) -> Tower:
    """Return an encoder that has patch features; raise `BadInput` for any other."""
    if not (isinstance(encoder, Tower) and getattr(encoder, "has_patches", True)):
        raise BadInput("This encoder has no patch features, which the adaptor needs.", "Choose `open_clip`.")
    return encoder


def require_free(folder: Path, restart: bool = False) -> None:
    """Raise `BadInput` for a folder with an adaptor, unless that is to be replaced."""
    if not restart and (folder / _CONFIG).exists():
        what = "other images, sub-queries, encoder, learning rate, batch or seed"
        raise BadInput(
            f"{folder} has an adaptor of another training: {what}.",
            "Choose another folder, or replace what is in it with --restart.",
        )


def save(folder: Path, net: AdaptorNet, config: Config) -> None:
    """Write a checkpoint, the weights first, each file atomically."""
    from safetensors.torch import save as serialize

    weights = {key: tensor.cpu().contiguous() for key, tensor in net.state_dict().items()}
    write_whole(folder / _WEIGHTS, serialize(weights))
    write_whole(folder / _CONFIG, json.dumps(config.model_dump(mode="json"), indent=1).encode())


def load(folder: Path) -> tuple[AdaptorNet, Config]:
    """Read a checkpoint; raise `BadInput` if the folder has none."""
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialize

    try:
        config = Config.model_validate_json((folder / _CONFIG).read_bytes())
        net = serialized(AdaptorNet)(config.shape)
        net.load_state_dict(deserialize((folder / _WEIGHTS).read_bytes()))
    except (OSError, ValidationError, SafetensorError, RuntimeError) as error:
        raise BadInput(f"No adaptor in {folder} ({type(error).__name__}).", TRAIN_ADAPTOR) from error
    return net.eval(), config
