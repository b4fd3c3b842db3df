"""RealRAG's switches, and whose a trained retriever is (Lyu et al., ICML 2025, sections 3 and 4).

Not covered: how a generator takes the references; the engine's own way of conditioning says that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from pleinair.tools.registry import resolve
from pleinair.tools.types import BadInput, Capabilities, Hit, Retriever, Value

if TYPE_CHECKING:
    from PIL.Image import Image

Method = Literal["reflective", "normal", "zero", "self_contrast"]
Loss = Literal["normal", "reflective"]
TRAIN = "`pleinair train retriever` trains one"
OURS = "pleinair."
UNTRAINED = "self_contrast"  # the method that asks nothing of the retriever


@runtime_checkable
class ContrastRetriever(Retriever, Protocol):
    """Also find what is near a text and far from a picture."""

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Find up to `k` pictures, best first by cos(., query) - weight * cos(., away)."""
        ...


class Chosen(Protocol):
    """Name an engine with its arguments."""

    backend: str

    @property
    def arguments(self) -> dict[str, Any]:
        """Give the engine's arguments."""
        ...


class RealRAGOptions(Value):
    """Choose the retriever that the run is about; the defaults are the paper's method.

    "reflective" and "normal" want a retriever so trained, "zero" wants an untrained one, "self_contrast"
    takes any. The last is ours and needs no training: it draws once without a reference, then looks for what
    is near the prompt and, by `weight`, far from that picture.
    """

    method: Method = "reflective"
    references: int = Field(default=1, ge=1, le=16)  # one in the paper's equations
    weight: float = Field(default=0.5, ge=0, le=4)  # of the cosine to the generator's own picture


class Training(Value):
    """Say what a retriever was trained with; it is no other generator's."""

    loss: Loss
    generator: str  # the id of its capabilities
    any_generator: bool = False  # the user wants it for others too


def training_of(part: object) -> Training | None:
    """Return the training of an encoder or a retriever, None for an untrained one."""
    found = getattr(part, "training", None)
    return found if isinstance(found, Training) else None


def foretold(chosen: Chosen, build: Callable[[Literal["encoder"], Any], object]) -> Training | None:
    """Say what a chosen encoder was trained with; ours is not loaded for it, another's is built.

    Raise `BadInput` where its training is not there.
    """
    make = resolve("encoder", chosen.backend)
    if foretell := getattr(make, "foretell", None):
        return Training.model_validate(foretell(**chosen.arguments))
    return None if make.__module__.startswith(OURS) else training_of(build("encoder", chosen))


def require_generator(training: Training | None, generator: str) -> None:
    """Refuse a retriever that was trained for another generator than the one whose id is given.

    Its negatives are that generator's faults. Raise `BadInput`; `any_generator` lets it pass.
    """
    if training is None or training.any_generator or training.generator == generator:
        return
    raise BadInput(
        f"The retriever was trained for generator `{training.generator}`, the run has `{generator}`.",
        f"{TRAIN} for it, and encoder.any_generator = true uses this one all the same.",
    )


def require(options: RealRAGOptions, training: Training | None, able: Capabilities) -> None:
    """Refuse what the options, the retriever and the generator cannot do together; raise `BadInput`."""
    if options.references > able.slots:
        raise BadInput(f"realrag.references = {options.references}: `{able.id}` takes {able.slots}.")
    require_generator(training, able.id)
    require_training(options, training)


def require_training(options: RealRAGOptions, training: Training | None) -> None:
    """Refuse a method that wants another retriever; raise `BadInput` with the ways out."""
    have = training.loss if training else "zero"
    if options.method not in (UNTRAINED, have):
        raise BadInput(
            f"realrag.method = {options.method!r}: the retriever is {have!r}.",
            f"Either {TRAIN}, and encoder.backend = 'reflective' opens it; or take this one as it is: --set "
            f"realrag.method={have} or --set realrag.method={UNTRAINED}.",
        )


def search_away(retriever: Retriever, query: str, away: Image, *, weight: float, k: int) -> list[Hit]:
    """Find up to `k` pictures by cos(picture, query) - weight · cos(picture, away), best first.

    Raise `BadInput` when the retriever compares no pictures.
    """
    if not isinstance(retriever, ContrastRetriever):
        raise BadInput("realrag.method = 'self_contrast': this retriever cannot compare with a picture.")
    return retriever.search_away(query, away, weight, k)
