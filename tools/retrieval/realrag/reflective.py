"""Encoder trained for one generator: a frozen encoder whose image embeddings are transformed by an MLP.

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

from pleinair.tools.arguments import complaint
from pleinair.tools.locks import serialized
from pleinair.tools.realrag import Loss, Sampling, Training
from pleinair.tools.registry import resolve
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Encoder, Value

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from pleinair.tools.types import Vectors

CHECKPOINT_EPOCHS = 2  # from one checkpoint to the next; figure 7 has 2, 4, 6, 8 and 10
_CONFIG = "retriever.json"
_CHECKPOINT = re.compile(r"epoch-(\d{3})\.safetensors")


class ReflectiveOptions(Value):
    """Options of a training; the paper publishes only the ten epochs of figure 7, the other values are ours.

    `tau_on_reflective` divides the reflective cosine by `tau` like the others; without it the loss is as
    printed in equation 7, whose reflective term is at most e. `collisions` says what is never a negative:
    anything of the positive's class, or only another copy of it. The paper has no rule; with "image" the
    reflective loss was measured worse than the normal one, as it pushes images of the right class away.
    """

    loss: Loss = "reflective"
    epochs: int = Field(default=10, ge=1, le=999)
    batch: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    tau: float = Field(default=0.07, gt=0)
    tau_on_reflective: bool = True
    collisions: Literal["class", "image"] = "class"
    width: int = Field(default=256, ge=1)  # of the MLP
    samples: int = Field(default=1, ge=1)  # of the generator, for each prompt
    seed: int = Field(default=0, ge=0, lt=2**31)


class TrainingConfig(Value):
    """Contents of `retriever.json`: options, generator, frozen encoder and training set of a training.

    Version 1 has no `sampling`; such a retriever is for the generator with the same id.
    """

    version: Literal[1, 2] = 2
    choices: ReflectiveOptions
    generator: str  # the id of its capabilities
    sampling: Sampling | None = None  # of the samples
    encoder: str  # the id of the frozen one
    engine: str  # its backend
    arguments: dict[str, Any] = Field(default_factory=dict)
    dim: int = Field(gt=0)
    lesson: str  # the digest of the training set


class ReflectiveEncoder:
    """Encoder of texts by the frozen encoder, and of images by the trained MLP on top of it."""

    def __init__(self, folder: str, epoch: int = 0, any_generator: bool = False) -> None:
        """Open a training's folder.

        Args:
            folder: what `pleinair train retriever --out` wrote.
            epoch: the checkpoint to use; 0 is the last one of a finished training.
            any_generator: allow generators other than the one it was trained for.

        Raises:
            BadInput: no such training or checkpoint, an unfinished one, or a base encoder that has changed.
        """
        path = Path(folder).expanduser()
        config = _load_config(path)
        self._frozen: Encoder = resolve("encoder", config.engine)(**config.arguments)
        if self._frozen.id != config.encoder:
            raise BadInput(f"{path} was trained on `{config.encoder}`, which is now `{self._frozen.id}`.")
        self._head = load_head(checkpoint(path, epoch or config.choices.epochs), config)
        self._config = config
        self.training = self.declare(folder, epoch, any_generator)

    @staticmethod
    def declare(folder: str, epoch: int = 0, any_generator: bool = False) -> Training:
        """Return the training of such an encoder without loading it; raise `BadInput` as the constructor.

        Whether its base encoder has changed is not known without loading that.
        """
        path = Path(folder).expanduser()
        config = _load_config(path)
        checkpoint(path, epoch or config.choices.epochs)
        return Training(
            loss=config.choices.loss,
            generator=config.generator,
            sampling=config.sampling,
            any_generator=any_generator,
        )

    @property
    def id(self) -> str:
        """Return the frozen encoder's id after twelve digits of checkpoint, loss and samples' generator."""
        sampling, loss = self._config.sampling, self._config.choices.loss
        generator = sampling.model_dump_json() if sampling else self._config.generator
        digest = hashlib.sha256(f"{loss}\n{generator}\n".encode())
        for key, tensor in self._head.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.contiguous().numpy())
        return f"reflective:{digest.hexdigest()[:12]}+{self._frozen.id}"

    @property
    def image_side(self) -> int:
        """Return the longer side of what the frozen encoder sees, in pixels; 0 if it does not say."""
        return int(getattr(self._frozen, "image_side", 0))

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Embed texts: float32 [n, dim], rows of length 1."""
        return self._frozen.encode_text(texts)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Embed images: float32 [n, dim], rows of length 1."""
        import torch

        with torch.inference_mode():
            rows: Vectors = self._head(torch.from_numpy(self._frozen.encode_images(images))).numpy()
        return rows


def _load_config(folder: Path) -> TrainingConfig:
    try:
        return TrainingConfig.model_validate_json((folder / _CONFIG).read_bytes())
    except OSError:
        raise BadInput(f"No trained retriever in {str(folder)!r}: it has no {_CONFIG}.") from None
    except ValidationError as error:
        raise BadInput(f"{folder / _CONFIG} is damaged: {complaint(error)}.") from None


def require_same(folder: Path, **values: object) -> bool:
    """Return whether a folder has a training; raise `BadInput` if one with other values than these."""
    if not (folder / _CONFIG).exists():
        return False
    stored = _load_config(folder)
    changed = [name for name, value in values.items() if getattr(stored, name) != value]
    if changed:
        raise BadInput(
            f"{folder} has another training (other {', '.join(changed)}).", "Choose another folder."
        )
    return True


def save_config(folder: Path, config: TrainingConfig) -> None:
    """Write the configuration; raise `BadInput` if the folder has another training.

    The encoder's arguments may differ, such as its device, and for samples `sampling` counts.
    """
    ignored = {"arguments", *({"generator"} if config.sampling else ())}
    if not require_same(folder, **{name: value for name, value in config if name not in ignored}):
        write_whole(folder / _CONFIG, config.model_dump_json(indent=1).encode())


def epochs_done(folder: Path) -> list[int]:
    """Return the epochs that have a checkpoint, ascending."""
    matches = (_CHECKPOINT.fullmatch(path.name) for path in folder.glob("epoch-*.safetensors"))
    return sorted(int(match[1]) for match in matches if match)


def checkpoint(folder: Path, epoch: int) -> Path:
    """Return the file of an epoch's checkpoint; raise `BadInput` if there is none."""
    path = folder / f"epoch-{epoch:03d}.safetensors"
    if not path.is_file():
        done = ", ".join(map(str, epochs_done(folder))) or "none"
        message = f"{folder} has no checkpoint of epoch {epoch} (there are: {done})."
        raise BadInput(message, "Repeat the same `pleinair train retriever` to continue it.")
    return path


def load_head(path: Path, config: TrainingConfig) -> Any:
    """Load the MLP of a checkpoint; raise `BadInput` if the file does not fit the configuration."""
    from pleinair.tools.retrieval.realrag.head import Head

    head = serialized(Head)(config.dim, config.choices.width)
    tensors = load_tensors(path).items()
    weights = {name.removeprefix("head."): value for name, value in tensors if name.startswith("head.")}
    try:
        head.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput(f"{path} does not fit its {_CONFIG}: {error}") from None
    return head.eval()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors; raise `BadInput` if the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is damaged: {error}") from None
