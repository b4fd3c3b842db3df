"""Pocket libraries: their mix of scenes and captions, and their files, listed in `metadata.jsonl`."""

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

NEAR_DUPLICATE, WRONG_CAPTION, EMPTY_CAPTION, NAMED_CAPTION = 0.05, 0.01, 0.03, 0.7


@dataclass(frozen=True, slots=True)
class Record:
    """Image with its line, and boxes by name; the line has no file name and no boxes."""

    file_name: str
    image: Image.Image
    line: Mapping[str, str]
    boxes: Mapping[str, list[float]]


def of_tiers(species: Sequence[Any], tiers: Sequence[str]) -> list[Any]:
    """Return the species of some tiers; raise ValueError if there is none."""
    matching = [s for s in species if s.tier in tiers]
    if not matching:
        raise ValueError(f"no species is of the tiers {tuple(tiers)}; choose from known, rare, novel")
    return matching


@dataclass(frozen=True, slots=True)
class Painter:
    """What a library needs of its world: its scenes, their captions, and the caption without words."""

    draw: Callable[..., Any]  # (rng, species, first): a scene of the first species, perhaps with others
    nudge: Callable[..., Any]  # (rng, scene): the scene moved a little
    caption: Callable[..., Any]  # (rng, scene, by_name=…)
    empty: Any


def mix(rng: random.Random, painter: Painter, species: Sequence[Any], size: int) -> Iterator[tuple[Any, Any]]:
    """Yield `size` scenes with captions: each species in turn, or the last scene again, moved a little."""
    scene = None
    for index in range(size):
        if scene is not None and rng.random() < NEAR_DUPLICATE:
            scene = painter.nudge(rng, scene)
        else:
            scene = painter.draw(rng, species, species[index % len(species)])
        yield scene, _caption(rng, painter, scene, species)


def _caption(rng: random.Random, painter: Painter, scene: Any, species: Sequence[Any]) -> Any:
    """Return the scene's caption; a few are empty, a few name some other species."""
    chance = rng.random()
    if chance < EMPTY_CAPTION:
        return painter.empty
    if chance < EMPTY_CAPTION + WRONG_CAPTION:
        subjects = tuple(replace(subject, species=rng.choice(species)) for subject in scene.subjects)
        return painter.caption(rng, replace(scene, subjects=subjects), by_name=True)
    return painter.caption(rng, scene, by_name=rng.random() < NAMED_CAPTION)


def file_name(index: int) -> str:
    """Return the name of image `index`."""
    return f"{index:05d}.png"


def cached(cache: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Return the library of that name in a cache folder; the first caller writes it while others wait."""
    folder = cache / name
    if not (folder / "metadata.jsonl").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{name}.lock"):
            if not (folder / "metadata.jsonl").exists():
                write(folder)
    return folder


def write_records(folder: Path, records: Iterable[Record]) -> None:
    """Write the records beside `folder`, then rename, so that a reader finds all of them or none.

    Raises:
        FileExistsError: `folder` exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} exists and is not empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        lines = [_write_record(draft, record) for record in records]
        (draft / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
        draft.chmod(0o755)
        draft.replace(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _write_record(folder: Path, record: Record) -> str:
    """Write one image and return its line."""
    record.image.save(folder / record.file_name)
    line: dict[str, object] = {"file_name": record.file_name, **record.line}
    if record.boxes:
        line["boxes"] = dict(record.boxes)
    return json.dumps(line) + "\n"
