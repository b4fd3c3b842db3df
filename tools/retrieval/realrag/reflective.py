"""Use a retriever that was trained for one generator: a frozen encoder, its pictures changed by an MLP.

RealRAG (Lyu et al., ICML 2025, section 3). A training's folder has `retriever.json` and a file every second
epoch. Not covered: training the vision tower itself, and folders from strangers on another base encoder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from pleinair.tools.locks import serialized
from pleinair.tools.realrag import Loss, Training
from pleinair.tools.registry import resolve
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Encoder, Value

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from pleinair.tools.types import Vectors


CARD = "retriever.json"
EVERY = 2  # epochs from one checkpoint to the next; figure 7 has 2, 4, 6, 8 and 10
CHECKPOINT = re.compile(r"epoch-(\d{3})\.safetensors")
GO_ON = "the same `pleinair train retriever` goes on with it."


class Choices(Value):
    """Set a training. The paper prints no value but the ten epochs of figure 7, so the others are ours.

    `tau_on_reflective` divides the reflective cosine by `tau` like the others; without it the loss is as
    printed in equation 7, whose reflective term is at most e. `collisions` says what is never a negative:
    another copy of the positive, or anything of its class; the paper has no rule.
    """

    loss: Loss = "reflective"
    epochs: int = Field(default=10, ge=1, le=999)
    batch: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    tau: float = Field(default=0.07, gt=0)
    tau_on_reflective: bool = True
    collisions: Literal["image", "class"] = "image"
    width: int = Field(default=256, ge=1)  # of the MLP
    samples: int = Field(default=1, ge=1)  # of the generator, for each prompt
    seed: int = Field(default=0, ge=0, lt=2**31)


class Card(Value):
    """Describe a training: its choices, whose faults it learns from, and on which frozen encoder."""

    version: Literal[1] = 1
    choices: Choices
    generator: str  # the id of its capabilities
    encoder: str  # the id of the frozen one
    engine: str  # that opens it
    arguments: dict[str, Any] = Field(default_factory=dict)
    dim: int = Field(gt=0)
    lesson: str  # a digest of the pairs, the samples and the negatives


class ReflectiveEncoder:
    """Embed texts as the frozen encoder does, and pictures through the trained MLP on top of it."""

    def __init__(self, folder: str, epoch: int = 0, any_generator: bool = False) -> None:
        """Open a training's folder.

        Args:
            folder: what `pleinair train retriever --out` wrote.
            epoch: the checkpoint to use; 0 is the last one, when the training is finished.
            any_generator: use it for generators other than its own too.

        Raises:
            BadInput: no such training or checkpoint, an unfinished one, or a base encoder that has changed.
        """
        path = Path(folder).expanduser()
        card = _load_card(path)
        self._frozen: Encoder = resolve("encoder", card.engine)(**card.arguments)
        if self._frozen.id != card.encoder:
            raise BadInput(f"{path} was trained on `{card.encoder}`, which is now `{self._frozen.id}`.")
        self._head = load_head(checkpoint(path, epoch or card.choices.epochs), card)
        self._card = card
        self.training = self.foretell(folder, any_generator=any_generator)

    @staticmethod
    def foretell(folder: str = "", any_generator: bool = False, **_: Any) -> Training:
        """Say what such an encoder was trained with, and load none; raise `BadInput` for no such training."""
        card = _load_card(Path(folder).expanduser())
        return Training(loss=card.choices.loss, generator=card.generator, any_generator=any_generator)

    @property
    def id(self) -> str:
        """Name the frozen encoder and the checkpoint, in twelve digits that depend on the generator too."""
        digest = hashlib.sha256(f"{self._card.choices.loss}\n{self._card.generator}\n".encode())
        for key, tensor in self._head.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.contiguous().numpy())
        return f"reflective:{digest.hexdigest()[:12]}+{self._frozen.id}"

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Embed texts: float32 [n, dim], rows of length 1."""
        return self._frozen.encode_text(texts)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Embed pictures: float32 [n, dim], rows of length 1."""
        import torch

        with torch.inference_mode():
            rows: Vectors = self._head(torch.from_numpy(self._frozen.encode_images(images))).numpy()
        return rows


def _load_card(folder: Path) -> Card:
    """Read what a folder's training is; raise `BadInput` where there is none."""
    try:
        return Card.model_validate_json((folder / CARD).read_bytes())
    except OSError:
        raise BadInput(f"No trained retriever in {str(folder)!r}: it has no {CARD}.") from None
    except ValidationError as error:
        raise BadInput(f"{folder / CARD} is damaged: {error.errors()[0]['msg']}.") from None


def save_card(folder: Path, card: Card) -> None:
    """Write the card, or refuse a folder that holds another training; raise `BadInput`."""
    if (folder / CARD).exists():
        old = _load_card(folder).model_dump()
        changed = [key for key, value in card.model_dump().items() if old[key] != value]
        if changed:
            raise BadInput(
                f"{folder} holds another training (other {', '.join(changed)}).", "Choose another folder."
            )
    write_whole(folder / CARD, card.model_dump_json(indent=1).encode())


def epochs_done(folder: Path) -> list[int]:
    """List the epochs that have a checkpoint, ascending."""
    found = (CHECKPOINT.fullmatch(path.name) for path in folder.glob("epoch-*.safetensors"))
    return sorted(int(match[1]) for match in found if match)


def checkpoint(folder: Path, epoch: int) -> Path:
    """Find an epoch's checkpoint; raise `BadInput` where it is not there."""
    path = folder / f"epoch-{epoch:03d}.safetensors"
    if not path.is_file():
        done = ", ".join(map(str, epochs_done(folder))) or "none"
        raise BadInput(f"{folder} has no checkpoint of epoch {epoch} (there are: {done}).", GO_ON)
    return path


def load_head(path: Path, card: Card) -> Any:
    """Load the MLP of a checkpoint; raise `BadInput` when the file is no such MLP."""
    from pleinair.tools.retrieval.realrag.head import Head

    head = serialized(Head)(card.dim, card.choices.width)
    tensors = load_tensors(path)
    own = {name.removeprefix("head."): value for name, value in tensors.items() if name.startswith("head.")}
    try:
        head.load_state_dict(own)
    except RuntimeError as error:
        raise BadInput(f"{path} does not fit its {CARD}: {error}") from None
    return head.eval()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors; raise `BadInput` when the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is damaged: {error}") from None
