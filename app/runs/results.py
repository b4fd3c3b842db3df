"""Files of a finished run: the best image with its metadata, and the sidecar."""

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

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.runs.events import Ended
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.runs.store import Run
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import sweep_parts, write_whole
from pleinair.tools.types import Attempt, Outcome, Reference

FORMAT = 1  # of the sidecar; incremented with every incompatible change
HEADING = {"run", "prompt", "graph", "seed", "parent", "models"}  # of `Ended`, in the PNG
SAVED = {"concepts", "attempts", "retrievals", "usage"}  # of `Ended`, in the sidecar
OPTIONAL = ("parent", "pictures", "thread")  # fields of a request that are omitted if empty
PARTS = ("pleinair", "langgraph", "torch", "diffusers", "open_clip_torch", "pillow")


@dataclass(frozen=True)
class Result:
    """Result of a run that has ended, or waits for a person's approval."""

    run_id: str
    outcome: Outcome
    seed: int
    picture: Path | None  # None if no image was generated
    sidecar: Path  # missing if the folder could not be written to
    question: ApprovalRequest | None = None  # that a person has to answer before the run goes on

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON values."""
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
    """Return the result of a finished or waiting run; the names of its files follow from its row."""
    run.require_intact()
    request, outcome = read_request(run.request_json), run.outcome
    if run.question:
        outcome = Outcome(ending="waiting", reason=f"the {run.question.before} wait for your approval")
    assert outcome is not None, "a finished run's row holds its outcome"
    picture, sidecar = files(run, request)
    image = picture if outcome.best and picture.exists() else None
    return Result(run.id, outcome, run.seed, image, sidecar, run.question)


def files(run: Run, request: DrawRequest, out: Path | None = None) -> tuple[Path, Path]:
    """Return the paths of the image and the sidecar, which depend only on the row and the request."""
    stem = (out or Path(request.out)) / f"{run.id}-{request.slug}"
    return stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".json")


def deliver(
    run: Run, request: DrawRequest, end: Ended, store: ArtifactStore, out: Path | None = None
) -> None:
    """Write both files atomically, to the request's folder or to `out`.

    Raises `PleinairError` if the disk is full or the folder cannot be written to.
    """
    picture, sidecar = files(run, request, out)
    with _parts_folder(picture.parent, run.id) as parts:
        if best := end.outcome.best:
            write_whole(picture, _png(store.open(best.picture), request, end, best), parts=parts)
        text = json.dumps(_sidecar(request, end), ensure_ascii=False, indent=2)
        write_whole(sidecar, text.encode(), parts=parts)


@contextmanager
def _parts_folder(out: Path, run_id: str) -> Iterator[Path]:
    """Yield a folder for unfinished files of this run, without those of a killed process."""
    parts = out / f".{run_id}"
    sweep_parts(parts, older_than=0)
    yield parts
    if parts.is_dir():
        parts.rmdir()


def _png(image: Image.Image, request: DrawRequest, end: Ended, best: Attempt) -> bytes:
    """Encode an image, with its metadata in text chunks unless the request strips them."""
    info = PngInfo()
    if not request.strip_metadata:
        info.add_text("parameters", _infotext(best, end))
        info.add_text("pleinair", json.dumps(_summary(end, best), ensure_ascii=False))
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _infotext(best: Attempt, end: Ended) -> str:
    """Return the parameters of the generation in the format that image browsers read."""
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
    return {
        **end.model_dump(mode="json", include=HEADING, exclude_none=True),
        "references": [credit(reference) for reference in best.request.references],
        "ending": end.outcome.ending,
        "reason": end.outcome.reason,
        "limit": end.outcome.limit,
    }


def credit(reference: Reference) -> dict[str, Any]:
    """Return a reference's id and rights, and its crop if only a part was sent."""
    hit = reference.hit
    facts = {"license": hit.license, "source": hit.source, "author": hit.author}
    part = {"crop": list(reference.crop)} if reference.crop else {}
    return {"concept": reference.concept, "id": hit.id, "sha256": reference.picture.sha256, **facts, **part}


def _sidecar(request: DrawRequest, end: Ended) -> dict[str, Any]:
    absent = {name for name in OPTIONAL if not getattr(request, name)}
    best = end.outcome.best
    return {
        "format": FORMAT,
        "run": end.run,
        "order": request.model_dump(mode="json", exclude=absent),
        "seed": end.seed,
        "models": end.models,
        "outcome": end.outcome.model_dump(mode="json"),
        "references": [credit(reference) for reference in (best.request.references if best else ())],
        **end.model_dump(mode="json", include=SAVED),
        "versions": end.versions,
    }


def versions() -> dict[str, str]:
    """Return the versions of all software that may change an image."""
    return {"python": sys.version.split()[0]} | {part: installed(part) for part in PARTS}


@cache
def installed(distribution: str) -> str:
    """Return the version of a distribution, or "not installed"."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
