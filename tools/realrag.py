"""RealRAG's options, and the generator of a trained retriever (Lyu et al., ICML 2025, sections 3 and 4).

Not covered: how a generator uses the references; that is its backend's conditioning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from pleinair.tools.arguments import declare
from pleinair.tools.registry import resolve
from pleinair.tools.types import BadInput, Capabilities, Hit, Retriever, Value

if TYPE_CHECKING:
    from PIL.Image import Image

Method = Literal["reflective", "normal", "zero", "self_contrast"]
Loss = Literal["normal", "reflective"]
_TRAIN = "`pleinair train retriever` trains one"


@runtime_checkable
class ContrastRetriever(Retriever, Protocol):
    """Retriever that can also search near a text and far from an image."""

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Search for up to `k` images, best first by cos(., query) - weight * cos(., away)."""
        ...


class RealRAGOptions(Value):
    """Retrieval method and references; the defaults are the paper's method.

    "reflective" and "normal" need a retriever trained with that loss, "zero" an untrained one,
    "self_contrast" any. The last is ours and needs no training: it generates once without a reference, then
    searches near the prompt and, by `weight`, far from that image.
    """

    method: Method = "reflective"  # which training the retriever needs
    references: int = Field(default=1, ge=1, le=16)  # images sent; the paper's equations have one
    weight: float = Field(default=0.5, ge=0, le=4)  # of the cosine to the generator's own image


class Sampling(Value):
    """All that a generator's samples depend on, beside prompt and seed."""

    sampler: str  # model, weights and arguments, as in `Capabilities`
    width: int  # pixels
    height: int
    num_inference_steps: int
    guidance_scale: float
    negative_prompt: str = ""

    @classmethod
    def of(cls, capabilities: Capabilities, negative_prompt: str = "") -> Sampling:
        """Return that of a generator, whose capabilities have the values that a run sets."""
        names = ("width", "height", "num_inference_steps", "guidance_scale")
        values = {name: getattr(capabilities, name) for name in names}
        sampler = capabilities.sampler or capabilities.id
        return cls(sampler=sampler, negative_prompt=negative_prompt, **values)


class Training(Value):
    """Loss that a retriever was trained with, and whose samples."""

    loss: Loss
    generator: str  # the id of its capabilities
    sampling: Sampling | None = None  # None: a training before 0.2, for which the generator's id counts
    any_generator: bool = False  # the user allows others too

    @property
    def is_free(self) -> bool:
        """Return whether any generator may use it: it has no samples, or the user allows all."""
        return self.any_generator or self.loss == "normal"


def training_of(part: object) -> Training | None:
    """Return the training of an encoder or a retriever, None for an untrained one."""
    training = getattr(part, "training", None)
    return training if isinstance(training, Training) else None


def declared_training(
    backend: str, arguments: Mapping[str, Any], build: Callable[[], object]
) -> Training | None:
    """Return the training of an encoder; only a third-party one that does not declare it is built.

    Raise `BadInput` if its files are missing.
    """
    training = declare("encoder", backend, arguments)
    if isinstance(training, Training):
        return training
    built_in = resolve("encoder", backend).__module__.startswith("pleinair.")
    return None if built_in else training_of(build())


def require_generator(
    training: Training | None, capabilities: Capabilities, negative_prompt: str = ""
) -> None:
    """Raise `BadInput` for a retriever that was trained on samples which the run's generator would not make.

    Its negatives are that generator's faults. A training with the normal loss has no samples, and with
    `any_generator` all are allowed. What only acts on references does not count.

    Args:
        training: of the retriever, None for an untrained one.
        capabilities: of the generator, with the values that the run sets.
        negative_prompt: of the run.
    """
    if training is None or training.is_free:
        return
    if training.sampling is None:
        differences = {"generator": (training.generator, capabilities.id)}
    else:
        trained, actual = training.sampling, Sampling.of(capabilities, negative_prompt)
        differences = {name: (value, getattr(actual, name)) for name, value in trained}
    texts = [f"{name} `{old}`, the run has `{new}`" for name, (old, new) in differences.items() if old != new]
    if texts:
        raise BadInput(
            f"The retriever was trained for {'; '.join(texts)}.",
            f"{_TRAIN} for it, and encoder.any_generator = true uses this one all the same.",
        )


def require_values(training: Training | None, capabilities: Capabilities, negative_prompt: str = "") -> None:
    """Raise `BadInput` as `require_generator`, but for the model, whose weights are not known yet."""
    if training and training.sampling:
        sampler = training.sampling.sampler
        require_generator(training, capabilities.model_copy(update={"sampler": sampler}), negative_prompt)


def require_references(options: RealRAGOptions, capabilities: Capabilities) -> None:
    """Raise `BadInput` for more references than the generator takes."""
    if options.references > capabilities.slots:
        raise BadInput(
            f"realrag.references = {options.references}: `{capabilities.id}` accepts {capabilities.slots} at "
            "most.",
            field="realrag.references",
        )


def require(
    options: RealRAGOptions,
    training: Training | None,
    capabilities: Capabilities,
    negative_prompt: str = "",
) -> None:
    """Raise `BadInput` for options that the retriever or the generator does not support."""
    require_references(options, capabilities)
    require_generator(training, capabilities, negative_prompt)
    require_training(options, training)


def require_training(options: RealRAGOptions, training: Training | None) -> None:
    """Raise `BadInput` for a method that needs another retriever."""
    loss = training.loss if training else "zero"
    if options.method not in ("self_contrast", loss):
        raise BadInput(
            f"realrag.method = {options.method!r}: the retriever is {loss!r}.",
            f"Either {_TRAIN}, and encoder.backend = 'reflective' opens it; or use this one: --set "
            f"realrag.method={loss} or --set realrag.method=self_contrast.",
        )


def search_away(retriever: Retriever, query: str, away: Image, *, weight: float, k: int) -> list[Hit]:
    """Search for up to `k` images by cos(image, query) - weight · cos(image, away), best first.

    Raise `BadInput` if the retriever does not compare images.
    """
    if not isinstance(retriever, ContrastRetriever):
        raise BadInput("realrag.method = 'self_contrast': this retriever cannot compare with an image.")
    return retriever.search_away(query, away, weight, k)
