"""Files of a finished run: the best image with its metadata, and the sidecar."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.credits import xmp
from pleinair.app.credits.sheet import NO_REFERENCES, Chosen, Sheet, credit_of, sheet_of
from pleinair.app.runs.events import Ended
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.runs.row import Run
from pleinair.tools.images.signed import SUFFIXES
from pleinair.tools.storage.artifacts import ArtifactStore, Original
from pleinair.tools.storage.files import sweep_parts, write_whole
from pleinair.tools.types import Attempt, Outcome

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
    original: Path | None = None  # the file in which a server sent and signed the image, unchanged
    question: ApprovalRequest | None = None  # that a person has to answer before the run goes on

    def _repr_png_(self) -> bytes | None:
        """Return the image for notebooks, which show it."""
        return self.picture.read_bytes() if self.picture else None

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
            "original": str(self.original) if self.original else None,
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
    originals = (original_file(picture, suffix) for suffix in (SUFFIXES if image else ()))
    original = next((path for path in originals if path.exists()), None)
    return Result(run.id, outcome, run.seed, image, sidecar, original, run.question)


def files(run: Run, request: DrawRequest, out: Path | None = None) -> tuple[Path, Path]:
    """Return the paths of the image and the sidecar, which depend only on the row and the request."""
    name = f"{request.slug}-{run.id}" if request.name else f"{run.id}-{request.slug}"
    stem = (out or Path(request.out)) / name
    return stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".json")


def original_file(picture: Path, suffix: str) -> Path:
    """Return the path of the signed file in which an image was received, beside the image."""
    return picture.with_name(f"{picture.stem}-original{suffix}")


def deliver(
    run: Run, request: DrawRequest, end: Ended, store: ArtifactStore, out: Path | None = None
) -> list[Path]:
    """Write the image, its original if there is one, and the sidecar, each atomically; return their paths.

    They are written to the request's folder or to `out`. Raises `PleinairError` if the disk is full or the
    folder cannot be written to.
    """
    picture, sidecar = files(run, request, out)
    with _parts_folder(picture.parent, run.id) as parts:
        contents: dict[Path, bytes] = {}
        extra: dict[str, Any] = {}
        if best := end.outcome.best:
            contents[picture] = png_of(best, request, end, store)
            if original := store.original(best.picture):
                path = original_file(picture, original.suffix)
                contents[path] = original.data
                extra["original"] = _facts_of(path, original)
        text = json.dumps(_sidecar(request, end) | extra, ensure_ascii=False, indent=2)
        contents[sidecar] = text.encode()
        for path, data in contents.items():
            write_whole(path, data, parts=parts)
    return list(contents)


def _facts_of(path: Path, original: Original) -> dict[str, str]:
    digest = hashlib.sha256(original.data).hexdigest()
    return {"file": path.name, "sha256": digest, "mime": SUFFIXES[original.suffix]}


@contextmanager
def _parts_folder(out: Path, run_id: str) -> Iterator[Path]:
    """Yield a folder for unfinished files of this run, without those of a killed process."""
    parts = out / f".{run_id}"
    sweep_parts(parts, older_than=0)
    yield parts
    if parts.is_dir():
        parts.rmdir()


def png_of(best: Attempt, request: DrawRequest, end: Ended, store: ArtifactStore) -> bytes:
    """Return an image of a run as the file that is delivered."""
    return _png(store.open(best.picture), request, end, best)


def _png(image: Image.Image, request: DrawRequest, end: Ended, best: Attempt) -> bytes:
    """Encode an image, with its metadata in text chunks unless the request strips them."""
    info = PngInfo()
    if not request.strip_metadata:
        info.add_text("parameters", _infotext(best, end))
        info.add_text("pleinair", json.dumps(_summary(request, end, best), ensure_ascii=False))
        info.add_itxt(xmp.KEY, _xmp(request, end))
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


def _xmp(request: DrawRequest, end: Ended) -> str:
    line = credits_of(request, end).line
    return xmp.packet(
        tool=f"pleinair {end.versions.get('pleinair', '')}".strip(),
        model=end.models.get("generator", ""),
        credit="" if line == NO_REFERENCES else line,
        source_type=source_type_of(request, end.attempts),
    )


def source_type_of(request: DrawRequest, attempts: Sequence[Attempt]) -> str:
    """Return IPTC's digital source type of a run's images.

    They are composites where a part of an image from outside was generated anew. What a chat inpaints is an
    image of its own if it is none of the user's.
    """
    users = {picture.sha256 for picture in request.pictures} | chosen_by(request).inputs
    own = {attempt.picture.sha256 for attempt in attempts}
    inpaints = [attempt.request.inpaint for attempt in attempts]
    sources = {inpaint.picture.sha256 for inpaint in inpaints if inpaint}
    is_composite = bool(sources & users) or (request.thread is None and not sources <= own)
    return xmp.COMPOSITE if is_composite else xmp.GENERATED


def credits_of(request: DrawRequest, end: Ended) -> Sheet:
    """Return the credits of a run that has ended."""
    best = end.outcome.best
    return sheet_of(end.run, end.prompt, end.attempts, best, end.models, chosen_by(request))


def chosen_by(request: DrawRequest) -> Chosen:
    """Return what the user has chosen as references before a run."""
    thread = request.thread
    if thread is None:
        return Chosen()
    inputs = frozenset(reference.picture.sha256 for reference in thread.given)
    return Chosen(inputs, frozenset((pin.concept, pin.hit.id) for pin in thread.pins))


def _summary(request: DrawRequest, end: Ended, best: Attempt) -> dict[str, Any]:
    return {
        **end.model_dump(mode="json", include=HEADING, exclude_none=True),
        "references": _credited(request, best),
        "ending": end.outcome.ending,
        "reason": end.outcome.reason,
        "limit": end.outcome.limit,
    }


def _credited(request: DrawRequest, best: Attempt | None) -> list[dict[str, Any]]:
    chosen, references = chosen_by(request), best.request.references if best else ()
    return [credit_of(reference, chosen).model_dump(mode="json") for reference in references]


def _sidecar(request: DrawRequest, end: Ended) -> dict[str, Any]:
    absent = {name for name in OPTIONAL if not getattr(request, name)}
    return {
        "format": FORMAT,
        "run": end.run,
        "order": request.model_dump(mode="json", exclude=absent),
        "seed": end.seed,
        "models": end.models,
        **end.model_dump(mode="json", include={"library"}),
        "outcome": end.outcome.model_dump(mode="json"),
        "references": _credited(request, end.outcome.best),
        "credits": credits_of(request, end).model_dump(mode="json", include={"others", "models", "line"}),
        **end.model_dump(mode="json", include=SAVED),
        "versions": end.versions,
    }


def read_sidecars(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the sidecars in a folder and below it, by their paths; other JSON files are left out."""
    for path in sorted(folder.rglob("*.json")):
        with suppress(OSError, ValueError, RecursionError, LookupError, TypeError):
            content = json.loads(path.read_bytes())
            if content["format"] == FORMAT and content["order"]["prompt"]:
                yield path, content


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
