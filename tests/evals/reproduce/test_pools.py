"""Parts of a generic library: they keep what it says of its images, and say nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from support.data_set_folders import noisy

from pleinair.evals.reproduce.pools import generic_folder, write_generic
from pleinair.tools.retrieval.library import Library


def test_a_part_of_a_library_has_its_captions_and_credits_and_no_other_ones(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for number in range(2):
        noisy("any", number).save(library / f"{number}.png")
    facts = {
        "file_name": "0.png",
        "text": "a wren",
        "license": "CC BY 4.0",
        "source": "a.org",
        "author": "Ada",
    }
    (library / "metadata.jsonl").write_text(json.dumps(facts), "utf-8")
    write_generic(library, 2, tmp_path / "out", 0, ())
    part = Library.open(generic_folder(library, 2, tmp_path / "out", 0))
    kept = {id: (i.caption, i.license, i.source, i.author) for id, i in part.items.items()}
    assert kept == {"0.png": ("a wren", "CC-BY-4.0", "a.org", "Ada"), "1.png": ("", "unknown", "", "")}
