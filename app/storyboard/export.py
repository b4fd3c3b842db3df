"""Export the storyboard of a run, finished or not, to one HTML or PNG file, or its trace to JSON.

The HTML has no script and loads nothing; all text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from pleinair.app.paths import Paths
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import Run
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.storyboard.html import render_page, run_values, strip_values
from pleinair.app.storyboard.png import render_png
from pleinair.app.storyboard.strip_png import strip_image, strip_png
from pleinair.app.texts import printable_json
from pleinair.app.trace.attribution import Attribution, read_attribution
from pleinair.app.trace.calls import steps_with_calls, usage_by_attempt
from pleinair.app.trace.show import Report
from pleinair.app.trace.trace import Trace, trace_begun
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

KINDS = (".html", ".png", ".json")


def export(run: Run, places: Paths, file: Path) -> None:
    """Write a storyboard to a .html or .png file, or the trace as JSON.

    Raises `BadInput` for another suffix, or a run that has not begun; `PleinairError` when the disk is full.
    """
    require_kind(file)
    write_whole(file.absolute(), exported(run, places, file.suffix))


def exported(run: Run, places: Paths, kind: str) -> bytes:
    """Return the storyboard of a run as .html or .png, or its trace as .json, with the messages.

    Raises `BadInput` for a run that has not begun.
    """
    if kind == ".json":
        return printable_json(Report(run, places).plain(messages=True)).encode()
    trace = trace_begun(run, places)
    gallery = Gallery(run.id, read_request(run.request_json), places)
    attribution = attribution_of(run, places)
    if kind == ".png":
        return render_png(trace, gallery, strip_image(attribution, gallery) if attribution else None)
    costs = usage_by_attempt(steps_with_calls(run, places))
    return render_html(trace, gallery, costs, attribution).encode()


def attribution_of(run: Run, places: Paths) -> Attribution | None:
    """Return the attribution of a run, None where there is none that can be read."""
    with suppress(BadInput):
        return read_attribution(places.files(run.id))
    return None


def render_html(
    trace: Trace,
    gallery: Gallery,
    costs: Mapping[int, str] = MappingProxyType({}),
    attribution: Attribution | None = None,
) -> str:
    """Return a storyboard as a page; its images are data URIs."""
    return render_page("storyboard.html", ["storyboard.css"], run_values(trace, gallery, costs, attribution))


def export_strip(attribution: Attribution, run: Run, places: Paths, file: Path) -> None:
    """Write the strip of an attribution to a .png or .html file, or all of it as .json; raises `BadInput`."""
    require_kind(file)
    gallery = Gallery(run.id, read_request(run.request_json), places)
    if file.suffix == ".json":
        data = printable_json(attribution.plain()).encode()
    elif file.suffix == ".png":
        data = strip_png(attribution, gallery)
    else:
        data = render_page("strip.html", ["storyboard.css"], strip_values(attribution, gallery)).encode()
    write_whole(file.absolute(), data)


def require_kind(file: Path) -> None:
    """Raise `BadInput` for a file that is none of `KINDS`, or a folder."""
    if file.is_dir():
        raise BadInput(f"{str(file)!r}: it is a folder; wanted a file")
    if file.suffix not in KINDS:
        raise BadInput(f"{str(file)!r}: wanted a name that ends in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
