"""What the user gets: the best picture with its story inside, and the full record beside it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pleinair.app.order import Order, read_order
from pleinair.app.runs import Run
from pleinair.app.work import Work
from pleinair.tools.artifacts import ArtifactStore
from pleinair.tools.disk import sweep_parts, write_whole
from pleinair.tools.types import Attempt, Outcome, Reference

PARTS = ("pleinair", "langgraph", "torch", "diffusers", "open_clip_torch", "pillow")


@dataclass(frozen=True)
class Result:
    """A finished run as its caller sees it."""

    run_id: str
    outcome: Outcome
    seed: int
    picture: Path | None  # None when nothing was drawn
    sidecar: Path

    def plain(self) -> dict[str, Any]:
        """Give the result as JSON values."""
        return {
            "run_id": self.run_id,
            "ending": self.outcome.ending,
            "reason": self.outcome.reason,
            "seed": self.seed,
            "picture": str(self.picture) if self.picture else None,
            "sidecar": str(self.sidecar),
            "outcome": self.outcome.model_dump(mode="json"),
        }


def result_of(run: Run) -> Result:
    """Give the result of a finished run; the files' names follow from its row."""
    order, outcome = read_order(run.order_json), run.outcome
    assert outcome is not None, "a finished run's row holds its outcome"
    picture, sidecar = files(run, order)
    return Result(run.id, outcome, run.seed, picture if outcome.best and picture.exists() else None, sidecar)


def files(run: Run, order: Order) -> tuple[Path, Path]:
    """Name the picture and the sidecar: always the same for one run, so none is made twice."""
    stem = Path(order.out) / f"{run.id}-{order.slug}"
    return stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".json")


def deliver(work: Work, outcome: Outcome) -> None:
    """Write both files whole; raises `PleinairError` when the disk is full or the folder is closed."""
    picture, sidecar = files(work.run, work.order)
    with parts_folder(picture.parent, work.run.id) as parts:
        if outcome.best:
            store = ArtifactStore(work.folder / "pictures")
            image = store.open(outcome.best.picture)
            write_whole(picture, png(image, work, outcome, outcome.best), parts=parts)
        text = json.dumps(full_record(work, outcome), ensure_ascii=False, indent=2)
        write_whole(sidecar, text.encode(), parts=parts)


@contextmanager
def parts_folder(out: Path, run_id: str) -> Iterator[Path]:
    """Give a place for unfinished files that is this run's alone, and leave nothing of a killed one's."""
    parts = out / f".{run_id}"
    sweep_parts(parts, older_than=0)
    yield parts
    if parts.is_dir():
        parts.rmdir()


def png(image: Image.Image, work: Work, outcome: Outcome, best: Attempt) -> bytes:
    """Encode a picture with its story in text chunks, unless the user wanted none."""
    info = PngInfo()
    if not work.order.strip_metadata:
        info.add_text("parameters", infotext(best, work.models))
        info.add_text("pleinair", json.dumps(story(work, outcome, best), ensure_ascii=False))
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()


def infotext(best: Attempt, models: dict[str, str]) -> str:
    """Write the generation in the form that picture browsers read under `parameters`."""
    request = best.request
    facts = {
        "Steps": request.num_inference_steps,
        "CFG scale": request.guidance_scale,
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": models.get("generator", "unknown").replace(",", ";"),
        "Version": f"pleinair {installed('pleinair')}",
    }
    lines = [request.prompt, f"Negative prompt: {request.negative_prompt}" if request.negative_prompt else ""]
    return "\n".join([*filter(None, lines), ", ".join(f"{key}: {value}" for key, value in facts.items())])


def story(work: Work, outcome: Outcome, best: Attempt) -> dict[str, Any]:
    """Tell in short how the picture came about."""
    return {
        "run": work.run.id,
        "prompt": work.order.prompt,
        "seed": work.run.seed,
        "graph": work.order.graph,
        "models": work.models,
        "references": [credit(reference) for reference in best.request.references],
        "ending": outcome.ending,
        "reason": outcome.reason,
    }


def credit(reference: Reference) -> dict[str, str]:
    """Say whose picture a reference is."""
    hit = reference.hit
    facts = {"license": hit.license, "source": hit.source, "author": hit.author}
    return {"concept": reference.concept, "id": hit.id, "sha256": reference.picture.sha256, **facts}


def full_record(work: Work, outcome: Outcome) -> dict[str, Any]:
    """Tell everything: what was asked, every attempt, every look-up, versions."""
    used = outcome.best.request.references if outcome.best else ()
    return {
        "format": 1,
        "run": work.run.id,
        "order": work.order.model_dump(mode="json"),
        "seed": work.run.seed,
        "models": work.models,
        "outcome": outcome.model_dump(mode="json"),
        "references": [credit(reference) for reference in used],
        **work.snapshot,
        "versions": {"python": sys.version.split()[0]} | {part: installed(part) for part in PARTS},
    }


def installed(distribution: str) -> str:
    """Give the version of an installed distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
