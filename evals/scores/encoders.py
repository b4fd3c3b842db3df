"""Encoders that score: open_clip's, DINO and DINOv2 in local folders, and never the retrieval's own.

A model that retrieved an image finds it close to the prompt, whatever it shows: such a score measures the
retrieval. So the retrieval's encoder is refused by its name before anything is loaded, and by the digest of
its weights afterwards.
"""

from __future__ import annotations

import filecmp
import pickle
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.evals.scores.weights import device_of, digest_of
from pleinair.tools.model_files.folders import locate
from pleinair.tools.model_files.hub import NotDownloaded
from pleinair.tools.model_files.open_clip import LOCAL, PINNED, WEIGHTS, hub_location
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.app.settings import BackendChoice
    from pleinair.tools.retrieval.encoder import OpenClipEncoder
    from pleinair.tools.types import Vectors

_DIGEST = re.compile(r"[0-9a-f]{12}")  # of weights, in an encoder's id; a commit of the hub has 40 digits
_TYPES = {"dino": ("vit",), "dinov2": ("dinov2", "dinov2_with_registers")}  # `model_type` of transformers
_FETCH = {
    "dino": "facebook/dino-vits16 (87 MB, Apache-2.0), which DreamBooth introduced as a score",
    "dinov2": "facebook/dinov2-large (1.2 GB, Apache-2.0), Cross-modal RAG's",
}


class DinoEncoder:
    """DINO (Caron et al., 2021) or DINOv2 (Oquab et al., 2024); an image is embedded as its class token."""

    def __init__(self, kind: str, folder: str, device: str = "auto") -> None:
        """Open a model in transformers' format with its own preprocessing.

        Args:
            kind: "dino" or "dinov2".
            folder: with `config.json`, `preprocessor_config.json` and weights, in safetensors or as
                `pytorch_model.bin`, which is read without running code.
            device: a torch device, or `auto` for CUDA if there is one.

        Raises:
            NotDownloaded: there is no such folder.
            BadInput: it contains no such model.
        """
        from transformers import AutoConfig, AutoImageProcessor, AutoModel

        if not Path(folder).is_dir():
            raise NotDownloaded(f"{kind}: {folder!r} is not a folder.", f"Fetch {_FETCH[kind]}.")
        try:
            found = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
            if found not in _TYPES[kind]:
                raise BadInput(
                    f"{kind}: {folder!r} has a model of the type {found!r}, not {_TYPES[kind][0]!r}."
                )
            options: dict[str, Any] = {"add_pooling_layer": False} if kind == "dino" else {}
            self._prepare = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            self._model = AutoModel.from_pretrained(folder, local_files_only=True, **options)
        except (OSError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(
                f"{kind}: {folder!r} is no such folder: {reason}", f"Fetch {_FETCH[kind]}."
            ) from error
        self._device = device_of(device)
        self._model.eval().to(self._device)
        preparing = self._prepare.to_json_string().encode()
        self.id = f"{kind}:{Path(folder).name}@{digest_of(self._model.state_dict(), preparing)}"

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Embed images: float32 [n, dim], rows of length 1."""
        import torch

        pixels = self._prepare([image.convert("RGB") for image in images], return_tensors="pt")
        with torch.inference_mode():
            rows = self._model(**pixels.to(self._device)).last_hidden_state[:, 0]  # the class token
        vectors: Vectors = torch.nn.functional.normalize(rows.float(), dim=-1).cpu().numpy()
        return vectors


@lru_cache(maxsize=4)
def open_dino(kind: str, folder: str) -> DinoEncoder:
    """Open a model once for all scores by it; raise as `DinoEncoder` does."""
    return DinoEncoder(kind, folder)


def open_clip_encoder(text: str, retriever: str = "", *, allow_same: bool = False) -> OpenClipEncoder:
    """Open an open_clip model that did not do the retrieval.

    Args:
        text: `MODEL=WEIGHTS`, `hf-hub:OWNER/NAME` or `local-dir:FOLDER`; `@COMMIT` behind those of the hub.
        retriever: the retrieval's encoder, by its id or written as `text` is; "" for none or an unknown one.
        allow_same: accept the retrieval's encoder too.

    Raises:
        NotDownloaded: it is not on this machine, or no commit of it is named.
        BadInput: it is the retrieval's encoder by name or weights, or is no model of open_clip.
    """
    if not allow_same and retriever and _names(text) & _names(retriever):
        raise _same(text, retriever)
    encoder = _open(text)
    digests = _weights(encoder.id) & _weights(retriever)
    if not allow_same and (digests or _same_file(text, retriever)):
        raise _same(text, retriever)
    return encoder


def _same(text: str, retriever: str) -> BadInput:
    return BadInput(
        f"{text} also did the retrieval ({retriever}), so it finds close what it has retrieved.",
        "Score with another model, or other weights; --allow-same-encoder measures all the same.",
    )


@lru_cache(maxsize=4)
def _open(text: str) -> OpenClipEncoder:
    from pleinair.tools.retrieval.encoder import OpenClipEncoder

    if text.startswith(LOCAL):
        return OpenClipEncoder(text, "")
    name, _, commit = text.partition("@")
    model, _, weights = name.partition("=")
    hub_id, commit = hub_location({"model": model, "revision": weights, "commit": commit})
    if not commit:
        raise NotDownloaded(
            f"{text}: wanted a commit of {hub_id}, 40 hexadecimal digits, as {text}@COMMIT",
            f"`hf download {hub_id}` fetches it and prints a path that ends in the commit.",
        )
    try:
        return OpenClipEncoder(model, weights, commit=commit)
    except NotDownloaded as error:
        raise NotDownloaded(
            f"{text}: {hub_id} at {commit} is not complete on this machine",
            f"`hf download {hub_id} --revision {commit}` fetches it.",
        ) from error


def encoder_text(choice: BackendChoice) -> str:
    """Return an encoder as the text of a scorer is written: `MODEL=WEIGHTS`, or its folder."""
    model, weights = (str(choice.arguments.get(name, "")) for name in ("model", "revision"))
    return f"{model}={weights}" if weights and ":" not in model else model


def _names(text: str) -> set[str]:
    """Return the names of a model and its weights: open_clip's, the hub's, or a local folder's path."""
    name = text.rsplit("+", 1)[-1].removeprefix("open_clip:")
    if name.startswith(LOCAL):
        return {str(locate(name.removeprefix(LOCAL)).resolve())}
    label = name.partition("@")[0].removeprefix("hf-hub:").replace("=", "/")
    return {label.casefold(), _hub_id(label).casefold()} if "/" in label else set()


def _hub_id(label: str) -> str:
    """Return the hub's id of `MODEL/WEIGHTS`; other labels are returned as they are."""
    if label in PINNED:
        return PINNED[label][0]
    model, _, weights = label.partition("/")
    try:
        return hub_location({"model": model, "revision": weights})[0]
    except BadInput:
        return label


def _weights(text: str) -> set[str]:
    """Return the digests of weights that an encoder's id contains."""
    return {part for part in re.split(r"[@:+]", text) if _DIGEST.fullmatch(part)}


def _same_file(text: str, retriever: str) -> bool:
    """Return whether two local folders hold the same weights."""
    if not (text.startswith(LOCAL) and retriever.startswith(LOCAL)):
        return False
    first, second = (locate(name.removeprefix(LOCAL)) / WEIGHTS for name in (text, retriever))
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)
