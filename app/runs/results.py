"""What the user gets: the best picture with its story inside, and the full record beside it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pleinair.app.runs.events import Ended
from pleinair.app.runs.request import DrawRequest, read_order
from pleinair.app.runs.store import Run
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import sweep_parts, write_whole
from pleinair.tools.types import Attempt, Outcome, Reference

FORMAT = 1  # of the record; raise it with every change that a reader would trip over
HEADING = {"run", "prompt", "graph", "seed", "parent", "models"}  # of the end, in the image
SAVED = {"concepts", "attempts", "retrievals", "usage"}  # of the end, in the sidecar
OPTIONAL = ("parent", "pictures", "thread")  # of an order; left out where there is none
PARTS = ("pleinair", "langgraph", "torch", "diffusers", "open_clip_torch", "pillow")


@dataclass(frozen=True)
class Result:
    """A finished run as its caller sees it."""

    run_id: str
    outcome: Outcome
    seed: int
    picture: Path | None  # None when nothing was drawn
    sidecar: Path  # not there where the folder could not be written to

    def plain(self) -> dict[str, Any]:
        """Give the result as JSON values."""
        return {
            "run_id": self.run_id,
            "ending": self.outcome.ending,
            "reason": self.outcome.reason,
            "limit": self.outcome.limit,
            "seed": self.seed,
            "picture": str(self.picture) if self.picture else None,
            "sidecar": str(self.sidecar) if self.sidecar.exists() else None,
            "outcome": self.outcome.model_dump(mode="json"),
        }


def result_of(run: Run) -> Result:
    """Give the result of a finished run; the files' names follow from its row."""
    order, outcome = read_order(run.order_json), run.outcome
    assert outcome is not None, "a finished run's row holds its outcome"
    picture, sidecar = files(run, order)
    return Result(run.id, outcome, run.seed, picture if outcome.best and picture.exists() else None, sidecar)


def files(run: Run, order: DrawRequest, out: Path | None = None) -> tuple[Path, Path]:
    """Name the picture and the sidecar: always the same for one run, so none is made twice."""
    stem = (out or Path(order.out)) / f"{run.id}-{order.slug}"
    return stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".json")


def deliver(run: Run, order: DrawRequest, end: Ended, store: ArtifactStore, out: Path | None = None) -> None:
    """Write both files whole, to the request's folder unless `out` names another.

    Raises `PleinairError` when the disk is full or the folder cannot be written to.
    """
    picture, sidecar = files(run, order, out)
    with _parts_folder(picture.parent, run.id) as parts:
        if best := end.outcome.best:
            write_whole(picture, _png(store.open(best.picture), order, end, best), parts=parts)
        text = json.dumps(_sidecar(order, end), ensure_ascii=False, indent=2)
        write_whole(sidecar, text.encode(), parts=parts)


@contextmanager
def _parts_folder(out: Path, run_id: str) -> Iterator[Path]:
    """Give a place for unfinished files that is this run's alone, and leave nothing of a killed one's."""
    parts = out / f".{run_id}"
    sweep_parts(parts, older_than=0)
    yield parts
    if parts.is_dir():
        parts.rmdir()


def _png(image: Image.Image, order: DrawRequest, end: Ended, best: Attempt) -> bytes:
    """Encode an image with its metadata in text chunks, unless the user wanted none."""
    info = PngInfo()
    if not order.strip_metadata:
        info.add_text("parameters", _infotext(best, end))
        info.add_text("pleinair", json.dumps(_summary(end, best), ensure_ascii=False))
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _infotext(best: Attempt, end: Ended) -> str:
    """Return the generation in the form that image browsers read under `parameters`."""
    request = best.request
    pairs = {
        "Steps": request.num_inference_steps,
        "CFG scale": request.guidance_scale,
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": end.models.get("generator", "unknown").replace(",", ";"),
        "Version": f"pleinair {end.versions.get('pleinair', 'unknown')}",
    }
    lines = [request.prompt, f"Negative prompt: {request.negative_prompt}" if request.negative_prompt else ""]
    return "\n".join([*filter(None, lines), ", ".join(f"{key}: {value}" for key, value in pairs.items())])


def _summary(end: Ended, best: Attempt) -> dict[str, Any]:
    """Return in short how the image came about."""
    return {
        **end.model_dump(mode="json", include=HEADING, exclude_none=True),
        "references": [credit(reference) for reference in best.request.references],
        "ending": end.outcome.ending,
        "reason": end.outcome.reason,
        "limit": end.outcome.limit,
    }


def credit(reference: Reference) -> dict[str, Any]:
    """Say whose picture a reference is, and which part of it was sent if not all."""
    hit = reference.hit
    facts = {"license": hit.license, "source": hit.source, "author": hit.author}
    part = {"crop": list(reference.crop)} if reference.crop else {}
    return {"concept": reference.concept, "id": hit.id, "sha256": reference.picture.sha256, **facts, **part}


def _sidecar(order: DrawRequest, end: Ended) -> dict[str, Any]:
    """Return everything: the request, every attempt, every retrieval, versions."""
    absent = {name for name in OPTIONAL if not getattr(order, name)}
    best = end.outcome.best
    return {
        "format": FORMAT,
        "run": end.run,
        "order": order.model_dump(mode="json", exclude=absent),
        "seed": end.seed,
        "models": end.models,
        "outcome": end.outcome.model_dump(mode="json"),
        "references": [credit(reference) for reference in (best.request.references if best else ())],
        **end.model_dump(mode="json", include=SAVED),
        "versions": end.versions,
    }


def versions() -> dict[str, str]:
    """Give the versions of what may change a picture."""
    return {"python": sys.version.split()[0]} | {part: installed(part) for part in PARTS}


@cache
def installed(distribution: str) -> str:
    """Give the version of an installed distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
