"""Tar shards, Parquet and Arrow files with images, as WebDataset and `datasets` write them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(colour: str = "red", side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def tar(files: Mapping[str, bytes] | Iterable[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def table(images: Iterable[bytes | None], paths: Iterable[str | None] = (), **columns: list[Any]) -> pa.Table:
    """Return a table as `datasets` writes it; columns named `label` hold classes "wren" and "finch"."""
    images, paths = list(images), list(paths)
    paths += [None] * (len(images) - len(paths))
    cells = [{"bytes": image, "path": path} for image, path in zip(images, paths, strict=True)]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["wren", "finch"]}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table({"image": pa.array(cells, IMAGE), **columns}).replace_schema_metadata(about)


def parquet(path: Path, content: pa.Table, rows: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(content, path, row_group_size=rows)
    return path


def arrow(path: Path, content: pa.Table, rows: int = 100, kind: Any = pa.ipc.new_stream) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, kind(file, content.schema) as writer:
        writer.write_table(content, rows)
    return path


def saved_data_set(folder: Path, content: pa.Table, shards: int = 2, **info: str) -> Path:
    """Write a folder as `Dataset.save_to_disk` does."""
    size = -(-content.num_rows // shards)
    names = [f"data-{n:05d}-of-{shards:05d}.arrow" for n in range(shards)]
    for n, name in enumerate(names):
        arrow(folder / name, content.slice(n * size, size), 2)
    state = {"_data_files": [{"filename": name} for name in names], "_format_type": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder
