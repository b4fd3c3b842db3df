"""Page of the images that a command generated: by prompt, with a real image and the references of each."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.evals.reproduce.generate import Studio, Work
from pleinair.evals.reproduce.records import Entry
from pleinair.evals.reproduce.results import row_name
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.types import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.evals.reproduce.report import Report

SHOWN = 12  # prompts of a data set
_SIDE = 256  # pixels of a thumbnail, at most
_TINY = 128  # pixels, under which an image is enlarged without smoothing


def examples(studio: Studio, works: Sequence[Work]) -> list[dict[str, Any]]:
    """Return the first prompts of each data set, each with its first seed; images are `data:` addresses."""
    by_set: dict[str, list[Work]] = {}
    for work in works:
        by_set.setdefault(work.arm.data_set, []).append(work)
    return [example for each in by_set.values() for example in islice(_examples(studio, each), SHOWN)]


def _examples(studio: Studio, works: Sequence[Work]) -> Iterator[dict[str, Any]]:
    first = {subject.prompt: subject for subject in reversed(works[0].subjects)}
    for subject in reversed(first.values()):
        real = [_image("real image", read_untrusted(path)) for path in subject.truth[:1]]
        made = [
            _shown(studio, work, entry)
            for work in works
            for entry in [studio.records.get(work.key(subject))]
            if entry
        ]
        if made:
            yield {
                "prompt": subject.prompt,
                "data_set": works[0].arm.data_set,
                "seed": subject.seed,
                "images": [*real, *made],
            }


def _shown(studio: Studio, work: Work, entry: Entry) -> dict[str, Any]:
    title = row_name(work.line, work.arm)
    image = studio.store.open(Picture(**entry["picture"])) if entry["picture"] else None
    references = [
        _image("", studio.store.open(Picture(**reference["picture"])))
        | {"id": reference["id"], "concept": reference["concept"]}
        for reference in entry["references"]
    ]
    return _image(title, image) | {"ending": entry["ending"], "references": references}


def _image(title: str, image: Image | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"title": title, "uri": "", "small": False, "ending": "", "references": []}
    if image is None:
        return shown
    small, file = max(image.size) < _TINY, io.BytesIO()
    copy = image.convert("RGB")
    copy.thumbnail((_SIDE, _SIDE))
    copy.save(file, "PNG" if small else "JPEG")
    kind, text = "png" if small else "jpeg", base64.b64encode(file.getvalue()).decode()
    return shown | {"uri": f"data:image/{kind};base64,{text}", "small": small}


def write_page(report: Report, warning: str, path: Path) -> Path:
    """Write the page; all text in it is escaped."""
    from jinja2 import Environment, StrictUndefined

    source = files("pleinair.evals").joinpath("data/reproduce.html").read_text("utf-8")
    template = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined).from_string(source)
    values: Mapping[str, Any] = {"report": report, "warning": warning.replace("*", "")}
    path.write_text(template.render(values), encoding="utf-8")
    return path
