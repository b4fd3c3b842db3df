"""Files of a pocket library: images, and a line for each in `metadata.jsonl`."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from PIL import Image


@dataclass(frozen=True, slots=True)
class Record:
    """Image with its line, and boxes by name; the line has no file name and no boxes."""

    file_name: str
    image: Image.Image
    line: Mapping[str, str]
    boxes: Mapping[str, list[float]]


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
