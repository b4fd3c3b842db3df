"""A home with a library whose captions and file names are hostile, a threshold, and quick backends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import quick_engines as quick

HOSTILE = '<b>x"&%2f.png'
CAPTION = "<script>alert('caption')</script> & wren"


@contextmanager
def library_place(folder: Path) -> Iterator[Path]:
    """Set up the place for the block: nine images, of which two are equal files and one is hostile."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PLEINAIR_")]:
            patch.delenv(name)
        for name, value in quick.install(folder).items():
            patch.setenv(name, value)
        patch.setenv("PLEINAIR_RETRIEVAL__THRESHOLD", "0.9")
        patch.syspath_prepend(folder / "plugin")
        patch.chdir(folder)
        _add_images(folder / "library")
        yield folder


def _add_images(library: Path) -> None:
    quick.speckled(16, (9, 200, 9)).save(library / HOSTILE)
    (library / "copy of 1.png").write_bytes((library / "1.png").read_bytes())
    quick.speckled(16, (200, 9, 9)).save(library / "unlicensed.png")
    facts = [
        {"file_name": HOSTILE, "text": CAPTION, "license": "<i>mine</i>", "author": '"><img src=x>'},
        {"file_name": "copy of 1.png", "text": "another picture", "license": "CC BY-NC 4.0"},
        {"file_name": "unlicensed.png", "captions": ["a kestrel over a field", "a falcon in the wind"]},
    ]
    lines = (library / "metadata.jsonl").read_text("utf-8").splitlines()
    (library / "metadata.jsonl").write_text("\n".join([*lines, *map(json.dumps, facts)]), "utf-8")
