"""Pocket concept detector: whether an image shows a phrase, and where.

The network is Cross-modal RAG's adaptor over a frozen encoder (Zhu et al. 2025, section 3.2): learnable query
tokens attend to patch features, the phrase attends to the queries, and a cosine to the phrase is the logit.
Here the queries are conditioned on the phrase, a box is predicted too, and the logit is calibrated. A phrase
with a word that was not in the training texts is replaced by its noun's kind ('beskevo warbler' by 'a bird')
and its probability halved, so that it is never reported as present. Not covered: relations, counts,
backgrounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pleinair.tools.locks import serialized
from pleinair.tools.model_files.folders import checksum, locate
from pleinair.tools.pocket.threads import PREFIX, one_thread
from pleinair.tools.pocket.world import KIND_OF_NOUN
from pleinair.tools.types import BadInput, Box

if TYPE_CHECKING:
    from PIL.Image import Image

PATCHES = 64  # 8 × 8 of them, 8 pixels a side
DIM = 128  # of the encoder's space


@dataclass(frozen=True, slots=True)
class Detection:
    """Calibrated probability that a phrase is present, and the box of its likeliest place.

    `box` is None where the probability is under .5; `unknown` is a word that was not in the training texts,
    or empty.
    """

    probability: float
    box: Box | None = None
    unknown: str = ""


class _CrossAttention(nn.Module):
    """Pre-norm attention from tokens to a context, then an MLP, both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        keys = self.norms[1](context)
        tokens = tokens + self.attention(self.norms[0](tokens), keys, keys, need_weights=False)[0]
        output: Tensor = tokens + self.mlp(self.norms[2](tokens))
        return output


class DetectorNet(nn.Module):
    """Network that scores pairs of an image and a phrase.

    `forward(patches, text)` takes unit vectors [n, 64, 128] and [n, 128]; it returns logits [n], boxes
    [n, 4] as centre and size in 0..1, and the patches' relevance logits [n, 64].
    """

    def __init__(self, width: int = 96, queries: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.from_patch = nn.Linear(DIM, width)
        self.from_match = nn.Linear(DIM, width)
        self.place = nn.Parameter(torch.randn(PATCHES, width) * 0.1)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.5)
        self.to_query = nn.Linear(DIM, width)
        self.to_text = nn.Linear(DIM, width)
        self.mix = _CrossAttention(width, heads)
        self.gather = nn.ModuleList(_CrossAttention(width, heads) for _ in range(2))
        self.read = _CrossAttention(width, heads)
        self.relevance = nn.Linear(width, 1)
        self.norm = nn.LayerNorm(width)
        self.verdict = nn.Linear(width, DIM)
        self.box = nn.Linear(width, 4)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(self, patches: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, boxes and relevance."""
        match = patches * text[:, None] * DIM
        tokens = self.from_patch(patches * DIM**0.5) + self.from_match(match) + self.place
        tokens = self.mix(tokens, tokens)
        queries = self.queries + self.to_query(text * DIM**0.5)[:, None]
        for layer in self.gather:
            queries = layer(queries, tokens)
        answer = self.norm(self.read(self.to_text(text * DIM**0.5)[:, None], queries))[:, 0]
        cosine = F.cosine_similarity(self.verdict(answer), text, dim=-1)
        return self.scale * cosine + self.shift, self.box(answer).sigmoid(), self.relevance(tokens)[..., 0]


class ConceptDetector:
    """Frozen pocket encoder with the trained detector network on top."""

    def __init__(
        self, folder: str | Path = "pocket/detector", encoder: str | Path = "pocket/encoder"
    ) -> None:
        """Load both.

        Args:
            folder: the detector's config.json and model.safetensors.
            encoder: the folder of the open_clip model that the detector was trained on.

        Raises:
            BadInput: a folder is missing, or the encoder is not the one the detector was trained on.
        """
        from safetensors.torch import load_file

        path, encoder_path = locate(str(folder)), locate(str(encoder))
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if checksum(encoder_path) != config["encoder"]:
            raise BadInput(
                f"The concept detector in {path.name!r} was trained on encoder {config['encoder']}, not on "
                f"{checksum(encoder_path)}; train it again: python -m pleinair.tools.pocket.training detector"
            )
        self._words = frozenset(config["words"])
        self._calibration = (config["calibration"]["scale"], config["calibration"]["shift"])
        self._clip, self._preprocess, self._tokenize = load_encoder(encoder_path)
        self._net = serialized(DetectorNet)(**config["net"])
        state = {key: value.float() for key, value in load_file(path / "model.safetensors").items()}
        self._net.load_state_dict(state)
        self._net.eval()

    def detect(self, image: Image, phrases: Sequence[str]) -> list[Detection]:
        """Return one detection for each phrase, in order; other image sizes are scaled to 64 × 64."""
        if not phrases:
            return []
        unknown = [self._unknown_word(phrase) for phrase in phrases]
        queries = [_in_training_words(phrase, word) for phrase, word in zip(phrases, unknown, strict=True)]
        probabilities, boxes = self._score(image, queries)
        return [_detection(p, box, word) for p, box, word in zip(probabilities, boxes, unknown, strict=True)]

    def _unknown_word(self, phrase: str) -> str:
        """Return the first word of the phrase that was in no training text, or ''."""
        words = re.findall(r"[^\W\d_]+", phrase.lower())
        return next((word for word in words if word not in self._words), "")

    def _score(self, image: Image, phrases: Sequence[str]) -> tuple[list[float], list[list[float]]]:
        pixels = self._preprocess(image.convert("RGB"))[None]
        with torch.inference_mode(), one_thread(PREFIX):
            _, patches = encode_images(self._clip, pixels)
            text = self._clip.encode_text(self._tokenize(list(phrases)), normalize=True)
            logits, boxes, _ = self._net(patches.expand(len(phrases), -1, -1), text)
            scale, shift = self._calibration
            return (logits * scale + shift).sigmoid().tolist(), boxes.tolist()


def _in_training_words(phrase: str, unknown: str) -> str:
    """Return the phrase, or 'a' and its noun's kind if it has an unknown word and a noun of the world."""
    kind = KIND_OF_NOUN.get(phrase.lower().split()[-1] if phrase.split() else "")
    return f"a {kind}" if unknown and kind else phrase.lower()


def _detection(probability: float, corners: Sequence[float], unknown: str) -> Detection:
    x, y, width, height = corners
    x0, y0, x1, y1 = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    box = (max(0.0, x0), max(0.0, y0), min(1.0, x1), min(1.0, y1))
    return Detection(
        probability / 2 if unknown else probability, box if probability >= 0.5 else None, unknown
    )


@serialized
def load_encoder(folder: Path) -> tuple[Any, Any, Any]:
    """Load the open_clip model of a folder: the model, its preprocessing, its tokenizer."""
    import open_clip

    source = f"local-dir:{folder}"
    model, preprocess = open_clip.create_model_from_pretrained(source)
    return model.eval(), preprocess, open_clip.get_tokenizer(source)


def encode_images(clip: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors of preprocessed images [n, 128] and of their patches [n, 64, 128]."""
    out = clip.visual.forward_intermediates(pixels, indices=1, normalize_intermediates=True, output_fmt="NLC")
    patches = out["image_intermediates"][0] @ clip.visual.proj
    return F.normalize(out["image_features"], dim=-1), F.normalize(patches, dim=-1)
