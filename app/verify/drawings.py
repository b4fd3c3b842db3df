"""Ten fixed prompts drawn by a profile, with references of the pocket library or of a folder, on one sheet.

The pocket profile draws them by its whole loop. Any other profile gets for each prompt the one reference that
shows its subject and draws once, as no MLLM may be at hand: whether a reference has an effect can be seen.
Runs are stored in a home folder of this measurement, not in the user's.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.api import DrawOptions, draw
from pleinair.app.libraries import open_library
from pleinair.app.paths import Paths, places
from pleinair.app.settings import load
from pleinair.app.verify.plan import (
    POCKET,
    CannotMeasure,
    Part,
    Plan,
    Row,
    Say,
    missing_weights,
    require_local,
)
from pleinair.tools.pocket.catalogue.captions import with_article
from pleinair.tools.pocket.catalogue.library import cached_library, shown_species
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.runs.results import Result

SUBJECTS = (  # species that no shipped generator was trained on, and places
    ("hoopoe", "in the snow"),
    ("kingfisher", "by a lake"),
    ("puffin", "on a beach"),
    ("apollo", "in the mountains"),
    ("mandarinfish", "under water"),
    ("passion flower", "in a garden"),
    ("indigo milk cap", "in a forest"),
    ("dragon fruit", "on a table"),
    ("samoyed", "in a meadow"),
    ("london cab", "in a city"),
)
_TINY_COUNT = 2
_POCKET_ENCODER = {
    "encoder.backend": "open_clip",
    "encoder.model": "local-dir:pocket/catalogue/encoder",
    "encoder.revision": "",
}
CELL, THUMB, TEXT, GAP, ACROSS = 256, 64, 56, 16, 5  # pixels of the sheet, images of a row


@dataclass(frozen=True)
class Task:
    """A prompt, and the image that shows its subject; "" where retrieval has to find it."""

    prompt: str
    reference: Path | None = None


def draw_prompts(part: Part, plan: Plan, say: Say) -> Iterator[Row]:
    """Yield a row for each prompt, and write the sheet `images-PROFILE.png` into the report's folder.

    Raises `CannotMeasure` for a profile whose models are not on this machine.
    """
    if lacking := next(missing_weights(require_local(part.profile)), ""):
        raise CannotMeasure(lacking, f"`pleinair models pull {part.profile}` downloads it.")
    with _own_home(plan.home):
        tasks = list(_tasks(part, plan))[: _TINY_COUNT if plan.tiny else None]
        cells = []
        for number, task in enumerate(tasks):
            say(f"image {number + 1} of {len(tasks)}")
            result = _draw(task, part.profile, number, plan)
            best = result.outcome.best
            cells.append((task, result.picture))
            yield {
                "prompt": task.prompt,
                "ending": result.outcome.ending,
                "reason": result.outcome.reason,
                "best_attempt": best.number if best else None,
                "seconds": best.seconds if best else None,
                "levels": list(best.offload_levels) if best else [],
            }
            write_whole(Path(plan.out) / f"{part.name}.png", _sheet(cells))


@contextmanager
def _own_home(home: Path) -> Iterator[None]:
    """Use another home for the block, with the cache and the pinned commits of models of the user's."""
    user, own = places(load().paths.home), Paths(home)
    home.mkdir(parents=True, exist_ok=True)
    user.cache.mkdir(parents=True, exist_ok=True)
    if not own.cache.exists():
        own.cache.symlink_to(user.cache.resolve(), target_is_directory=True)
    if user.commits.is_file():
        shutil.copy(user.commits, own.commits)
    before = os.environ.get("PLEINAIR_HOME")
    os.environ["PLEINAIR_HOME"] = str(home)
    try:
        yield
    finally:
        del os.environ["PLEINAIR_HOME"]
        if before is not None:
            os.environ["PLEINAIR_HOME"] = before


def _tasks(part: Part, plan: Plan) -> Iterator[Task]:
    if part.profile == POCKET:
        yield from (Task(f"{with_article(name)} {place}") for name, place in SUBJECTS)
    elif plan.library:
        yield from _captioned(plan)
    else:
        folder, shown = cached_library(Paths(plan.home).cache), shown_species()
        for name, place in SUBJECTS:
            file = next(file for file, species in shown.items() if species == (name,))
            yield Task(f"{with_article(name)} {place}", folder / file)


def _captioned(plan: Plan) -> Iterator[Task]:
    """Yield ten captioned images whose license is known, evenly over a library, with their captions."""
    settings = load(POCKET, {"library.folder": plan.library})
    library = open_library(settings, Paths(plan.home))
    items = [item for _, item in sorted(library.items.items()) if item.caption and item.license]
    if not items:
        raise BadInput(
            f"--library {plan.library!r}: no image has a caption and a license",
            "Add both to its metadata.jsonl (docs/library.md), or leave the option out.",
        )
    count = len(SUBJECTS)
    for item in items[:: max(1, len(items) // count)][:count]:
        yield Task(item.caption.partition("\n")[0], library.path(item.id))


def _draw(task: Task, profile: str, seed: int, plan: Plan) -> Result:
    overrides: dict[str, Any] = {
        "generator.device": plan.device,
        "library.folder": POCKET,
        "mllm.backend": POCKET,
        "output.previews": False,
        **_POCKET_ENCODER,
    }
    options: DrawOptions = {
        "profile": profile,
        "seed": seed,
        "out": Path(plan.work) / "images",
        "overrides": overrides,
    }
    if task.reference is not None:
        options |= {"graph": "direct", "input_images": [task.reference]}
    return draw(task.prompt, **options)


def _sheet(cells: Sequence[tuple[Task, Path | None]]) -> bytes:
    """Return a PNG without metadata: each image with its reference and its prompt below."""
    from PIL import Image, ImageOps

    from pleinair.app.storyboard.png import PAPER, SCALE, Column

    down = -(-len(cells) // ACROSS)
    size = (ACROSS * (CELL + GAP) + GAP, down * (CELL + TEXT + GAP) + GAP)
    page = Image.new("RGB", size, PAPER)
    for number, (task, path) in enumerate(cells):
        row, column = divmod(number, ACROSS)
        x, y = GAP + column * (CELL + GAP), GAP + row * (CELL + TEXT + GAP)
        for file, side, top in ((path, CELL, y), (task.reference, THUMB, y + CELL - THUMB)):
            if file is not None:
                with Image.open(file) as image:
                    page.paste(ImageOps.pad(image.convert("RGB"), (side, side), color=PAPER), (x, top))
        text = Column(CELL // SCALE)
        text.text(task.prompt, 9, most=3)
        page.paste(text.image().crop((0, 0, CELL, TEXT)), (x, y + CELL))
    data = io.BytesIO()
    page.save(data, "PNG")
    return data.getvalue()
