"""From settings to a trained adaptor: what `pleinair train adaptor` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.app.engines import check, engine, library_folder
from pleinair.app.places import places
from pleinair.app.settings import Settings

if TYPE_CHECKING:
    from pleinair.tools.retrieval.adaptor_training import Course


def train_adaptor(settings: Settings, out: Path, course: Course) -> Iterator[str]:
    """Train the dense adaptor on the chosen library's captions; yield what was done, a line an epoch.

    The chat model breaks each caption down once; `budget.mllm_calls` limits that, and what it answered is
    kept in `out`. Raise `BadInput` for an encoder without patch features or fewer than two usable pictures.
    """
    from pleinair.tools.retrieval.adaptor import require_tower
    from pleinair.tools.retrieval.adaptor_training import break_down, train
    from pleinair.tools.retrieval.library import Library

    check(settings)
    tower = require_tower(engine("encoder", settings.encoder))
    library = Library.open(library_folder(settings, places(settings.paths.home)))
    captions = {item.id: item.caption for item in library.items.values() if item.caption}
    model = engine("mllm", settings.mllm)
    found = list(break_down(captions, out, model, settings.budget.mllm_calls))
    examples = [one for one in found if one]
    left = len(found) - len(examples)
    yield f"{len(examples)} of {len(library.items)} pictures have sub-queries; {left} captions gave none"
    for number, loss in enumerate(
        train(examples, out, tower=tower, open=library.picture, course=course), start=1
    ):
        yield f"epoch {number} of {course.epochs}: loss {loss:.4f}"
    yield f"--set crossmodal.adaptor={out} uses it"
