"""What a doctor looks at among a profile's engines: that each opens, answers and fits the others.

No weight of a generator is loaded and nothing is paid for: files are judged by their configs and headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pleinair.app.engines import chosen_generator, engine
from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.realrag import require_generator, training_of
from pleinair.tools.registry import Kind
from pleinair.tools.types import BadInput, PleinairError
from pleinair.tools.worker.worker import Worker

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.app.models.inventory import Piece

ABSENT = "it is not here"  # as `models.faults` says it


def name_of(kind: Kind, choice: BackendChoice) -> str:
    """Build an engine and give its own id, or its name; one on a server is greeted there."""
    built = engine(kind, choice)
    if greet := getattr(built, "greet", None):
        return str(greet())
    return str(getattr(getattr(built, "capabilities", built), "id", None) or choice.backend)


def generator(settings: Settings) -> str:
    """Build the generator where it will draw: one with a process of its own is built there and only there."""
    if not settings.worker.process:
        return name_of("generator", settings.generator)
    worker = cast(Worker, chosen_generator(settings))
    worker.close()  # a new process, so that what is said is true now
    try:
        return f"{worker.greet()}, in a process of its own"
    finally:
        worker.close()


def files(settings: Settings) -> str:
    """Judge the files of every model of the profile; raise `PleinairError` where one is broken."""
    from pleinair.app.models.inventory import pieces

    broken, absent = [], []
    for piece in pieces(settings):
        if _fetched_later(piece):
            absent.append(piece.model)
        elif fault := _first_fault(piece):
            broken.append(f"{piece.role} {piece.model}: {fault}")
    if broken:
        raise PleinairError("; ".join(broken))
    return f"fetched at the first use: {', '.join(absent)}" if absent else "whole, as far as they are known"


def _fetched_later(piece: Piece) -> bool:
    """Tell whether a model is not here, and will be brought from the hub at its first use."""
    from huggingface_hub import constants

    from pleinair.app.models.inventory import faults

    asked = piece.on_hub and not (constants.HF_HUB_OFFLINE or piece.table.get("local_files_only"))
    return asked and list(faults(piece)) == [ABSENT]


def _first_fault(piece: Piece) -> str:
    """Give the first fault of a model's files and the number of the others; "" where all is well."""
    from pleinair.app.models.inventory import faults

    if piece.on_hub and not piece.revision:
        return "no commit is set"
    found = [fault.rstrip(".") for fault in faults(piece)]
    return found[0] + f" (and {len(found) - 1} more)" * (len(found) > 1) if found else ""


def encoder(choice: BackendChoice) -> str:
    """Build an encoder and give its id; one that is still to be fetched is left where it is."""
    from pleinair.app.models.inventory import clip

    piece = clip(choice)
    if _fetched_later(piece):
        return f"{choice.label}, fetched at the first use"
    if piece.on_hub and _first_fault(piece) == ABSENT:
        raise PleinairError(f"{choice.label} is not here: see the model files below")
    return name_of("encoder", choice)


def _is_awaited(choice: BackendChoice) -> bool:
    """Tell whether building an encoder would download it."""
    from pleinair.app.models.inventory import clip

    return _fetched_later(clip(choice))


def second_encoder(settings: Settings) -> str:
    """Build the other encoder of retrieval.method = "both"; "" where there is none."""
    knobs = settings.retrieval
    if knobs.second:
        return encoder(knobs.second)
    if knobs.method == "both":
        raise BadInput("retrieval.method = 'both' wants another encoder too, in the table retrieval.second")
    return ""


def retriever(settings: Settings) -> str:
    """Check that a trained retriever is this generator's; "" for an untrained one, or one not here yet."""
    if _is_awaited(settings.encoder):
        return ""
    training = training_of(engine("encoder", settings.encoder))
    if training is None:
        return ""
    require_generator(training, chosen_generator(settings).capabilities.id)
    whose = "any generator" if training.any_generator else "this generator"
    return f"trained with the {training.loss} loss, for {whose}"


def _no_picture(id: str) -> Image:
    """Open no picture: an adaptor is looked at without one."""
    raise BadInput(f"picture {id!r}: none is looked at here")


def adaptor(settings: Settings) -> str:
    """Open the adaptor and check that it is this encoder's; "" where the settings name none."""
    if not (folder := settings.crossmodal.adaptor):
        return ""
    if _is_awaited(settings.encoder):
        return f"{folder}, looked at once the encoder is here"
    from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer

    open_scorer(folder, engine("encoder", settings.encoder), _no_picture)
    return f"{folder}, for this encoder"
