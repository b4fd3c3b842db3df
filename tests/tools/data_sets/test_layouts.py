"""Every layout: a tiny folder is written, recognised, and read as the same examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.data_set_folders import CLASSES, WRITERS, write_data_set

from pleinair.tools.data_sets.recognise import LAYOUTS, recognise


@pytest.mark.parametrize("writer", sorted(WRITERS))
@pytest.mark.parametrize("wrapped", ["", "archive/unpacked"])
def test_a_folder_is_recognised_with_all_its_examples(tmp_path: Path, writer: str, wrapped: str) -> None:
    layout, _, variant = writer.partition(":")
    written = write_data_set(layout, tmp_path / wrapped, variant=variant)
    data_set = recognise(tmp_path)
    assert data_set.layout is LAYOUTS[layout]
    paths = [
        data_set.file(example).relative_to(tmp_path / wrapped).as_posix() for example in data_set.examples
    ]
    facts = {(e.path, e.class_name, e.captions, e.split, *sorted(e.facts.items())) for e in written}
    assert {
        (path, e.class_name, e.captions, e.split, *sorted(e.facts.items()))
        for path, e in zip(paths, data_set.examples, strict=True)
    } == facts
    assert all(data_set.file(example).is_file() for example in data_set.examples)
    has_split = layout == "wikiart" or any(example.split for example in written)
    kinds = [text.partition(":")[0] for text in data_set.problems]
    assert kinds == ([] if has_split else ["no split"])
    names = dict.fromkeys(example.class_name for example in written if example.class_name)
    assert set(data_set.class_names) == set(names)
    if layout not in ("wikiart", "coco", "flickr30k") and variant not in ("2021", "folders"):
        assert [name.lower() for name in data_set.class_names] == [*CLASSES]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_layout_says_what_it_is_where_it_is_from_and_under_which_license(layout: str) -> None:
    each = LAYOUTS[layout]
    assert all((each.title, each.size, each.license, each.source, each.needs))
    assert layout in WRITERS
