"""What a doctor looks at among a profile's engines: that each opens, answers and fits the others.

No weight of a generator is loaded and nothing is paid for: files are judged by their configs and headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pleinair.app.engines import chosen_generator, engine
from pleinair.app.settings import EngineChoice, Settings
from pleinair.tools.realrag import require_generator, training_of
from pleinair.tools.registry import Kind
from pleinair.tools.types import BadInput, PleinairError
from pleinair.tools.worker import Worker

if TYPE_CHECKING:
    from PIL.Image import Image

ABSENT = "it is not here"  # as `models.faults` says it


def name_of(kind: Kind, choice: EngineChoice) -> str:
    """Build an engine and give its own id, or its name; one on a server is greeted there."""
    built = engine(kind, choice)
    if greet := getattr(built, "greet", None):
        return str(greet())
    return str(getattr(getattr(built, "capabilities", built), "id", None) or choice.engine)


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
    from huggingface_hub import constants

    from pleinair.app.checks.models import faults, pieces

    broken, absent = [], []
    for piece in pieces(settings):
        found = list(faults(piece))
        fetched = piece.on_hub and not (constants.HF_HUB_OFFLINE or piece.table.get("local_files_only"))
        if found == [ABSENT] and fetched:
            absent.append(piece.model)
        elif found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            broken.append(f"{piece.role} {piece.model}: {found[0]}{more}")
    if broken:
        raise PleinairError("; ".join(broken))
    return f"fetched at the first use: {', '.join(absent)}" if absent else "whole, as far as they are known"


def second_encoder(settings: Settings) -> str:
    """Build the other encoder of retrieval.method = "both"; "" where there is none."""
    knobs = settings.retrieval
    if knobs.second:
        return name_of("encoder", knobs.second)
    if knobs.method == "both":
        raise BadInput("retrieval.method = 'both' wants another encoder too, in the table retrieval.second")
    return ""


def retriever(settings: Settings) -> str:
    """Check that a trained retriever is this generator's; "" for an untrained one."""
    training = training_of(engine("encoder", settings.encoder))
    if training is None:
        return ""
    require_generator(training, chosen_generator(settings).capabilities.id)
    whose = "any generator" if training.any_generator else "this generator"
    return f"trained with the {training.loss} loss, for {whose}"


def no_picture(id: str) -> Image:
    """Open no picture: an adaptor is looked at without one."""
    raise BadInput(f"picture {id!r}: none is looked at here")


def adaptor(settings: Settings) -> str:
    """Open the adaptor and check that it is this encoder's; "" where the settings name none."""
    if not (folder := settings.crossmodal.adaptor):
        return ""
    from pleinair.tools.retrieval.adaptor import open_scorer

    open_scorer(folder, engine("encoder", settings.encoder), no_picture)
    return f"{folder}, for this encoder"
