"""Pocket concept detector: whether an image shows a phrase, and where.

The network is Cross-modal RAG's adaptor over a frozen encoder (Zhu et al. 2025, section 3.2): learnable query
tokens attend to patch features, the phrase attends to the queries, and a cosine to the phrase is the logit.
Here the queries are conditioned on the phrase, a box is predicted too, and the logit is calibrated. With
`details`, a small convolutional network adds its own features to those of the patches. A phrase with a word
that was not in the training texts, or with a name that is listed as untaught, is replaced by its noun's kind
('beskevo warbler' by 'a bird') and its probability halved, so that it is never reported as present. Not
covered: relations, counts, backgrounds.
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
from pleinair.tools.pocket.invented.world import KIND_OF_NOUN
from pleinair.tools.pocket.threads import PREFIX, one_thread
from pleinair.tools.types import BadInput, Box

if TYPE_CHECKING:
    from PIL.Image import Image

PATCHES = 64  # of an image, in a grid of 8 × 8
DIM = 128  # of the encoder's space


@dataclass(frozen=True, slots=True)
class Detection:
    """Calibrated probability that a phrase is present, and the box of its likeliest place.

    `box` is None where the probability is under .5; `unknown` is a word that was not in the training texts,
    an untaught name, or empty.
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


class _Block(nn.Module):
    """Residual 3 × 3 convolution, dilated, then a 1 × 1 one."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.norm(self.first(x))))
        return x + change


def _shrink(channels: int, width: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


class _Details(nn.Module):
    """Convolutional features [n, 64, width] of preprocessed images [n, 3, 96, 96], on the patches' grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _shrink(3, width // 4, 4, 2),
            _shrink(width // 4, width // 2, 4, 2),
            _Block(width // 2, 1),
            _Block(width // 2, 2),
            _shrink(width // 2, width, 5, 3),
            _Block(width, 1),
            _Block(width, 2),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(pixels).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class DetectorNet(nn.Module):
    """Network that scores pairs of an image and a phrase.

    `forward(patches, text, details)` takes unit vectors [n, 64, 128] and [n, 128], and the images' details
    [n, 64, details] unless `details`, the width of the convolutional features, is 0. It returns logits [n],
    boxes [n, 4] as centre and size in 0..1, and the patches' relevance logits [n, 64].
    """

    def __init__(self, width: int = 96, queries: int = 4, heads: int = 4, details: int = 0) -> None:
        super().__init__()
        self.details = _Details(details) if details else None
        if details:
            self.from_details = nn.Linear(details, width)
            self.to_text_space = nn.Linear(details, DIM)
            self.from_text_space = nn.Linear(DIM, width)
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

    def extract_details(self, pixels: Tensor) -> Tensor | None:
        """Return the details [n, 64, details] of preprocessed images [n, 3, 96, 96]; None without details."""
        return None if self.details is None else self.details(pixels)

    def project(self, details: Tensor) -> Tensor:
        """Return unit vectors [n, 64, 128] in the encoder's space of details [n, 64, details]."""
        return F.normalize(self.to_text_space(details), dim=-1)

    def forward(
        self, patches: Tensor, text: Tensor, details: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, boxes and relevance."""
        match = patches * text[:, None] * DIM
        tokens = self.from_patch(patches * DIM**0.5) + self.from_match(match) + self.place
        if details is not None:
            match = self.project(details) * text[:, None] * DIM
            tokens = tokens + self.from_details(details) + self.from_text_space(match)
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
        self,
        folder: str | Path = "pocket/catalogue/detector",
        encoder: str | Path = "pocket/catalogue/encoder",
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
        self._untaught: dict[str, str] = config.get("untaught", {})
        self._calibration = (config["calibration"]["scale"], config["calibration"]["shift"])
        self._clip, self._preprocess, self._tokenize = load_encoder(encoder_path)
        self._net = serialized(DetectorNet)(**config["net"])
        state = {key: value.float() for key, value in load_file(path / "model.safetensors").items()}
        self._net.load_state_dict(state)
        self._net.eval()

    def detect(self, image: Image, phrases: Sequence[str]) -> list[Detection]:
        """Return one detection for each phrase, in order; images are scaled to the encoder's size."""
        if not phrases:
            return []
        unknown = [self._unknown_words(phrase) for phrase in phrases]
        queries = [self._in_training_words(*pair) for pair in zip(phrases, unknown, strict=True)]
        probabilities, boxes = self._score(image, queries)
        return [_detection(p, box, word) for p, box, word in zip(probabilities, boxes, unknown, strict=True)]

    def _unknown_words(self, phrase: str) -> str:
        """Return an untaught name in the phrase, else its first word of no training text, else ''."""
        text = phrase.lower()
        words = re.findall(r"[^\W\d_]+", text)
        names = (name for name in self._untaught if re.search(rf"\b{re.escape(name)}\b", text))
        return next(names, None) or next((word for word in words if word not in self._words), "")

    def _in_training_words(self, phrase: str, unknown: str) -> str:
        """Return the phrase, or 'a' and its kind if it has an unknown word and a noun of the world."""
        noun = phrase.lower().split()[-1] if phrase.split() else ""
        kind = self._untaught.get(unknown) or KIND_OF_NOUN.get(noun)
        return f"a {kind}" if unknown and kind else phrase.lower()

    def _score(self, image: Image, phrases: Sequence[str]) -> tuple[list[float], list[list[float]]]:
        pixels = self._preprocess(image.convert("RGB"))[None]
        with torch.inference_mode(), one_thread(PREFIX):
            _, patches = encode_images(self._clip, pixels)
            text = self._clip.encode_text(self._tokenize(list(phrases)), normalize=True)
            details = self._net.extract_details(pixels)
            details = None if details is None else details.expand(len(phrases), -1, -1)
            logits, boxes, _ = self._net(patches.expand(len(phrases), -1, -1), text, details)
            scale, shift = self._calibration
            return (logits * scale + shift).sigmoid().tolist(), boxes.tolist()


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
