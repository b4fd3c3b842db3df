"""Data sets in one folder or in several beside each other: each is read with the lists that lie beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.data_set_folders import WRITERS, write_data_set

from pleinair.tools.data_sets.data_set import DataSet, Example
from pleinair.tools.data_sets.recognise import recognise_all
from pleinair.tools.types import BadInput


def facts(examples: Iterable[Example]) -> set[tuple[object, ...]]:
    return {(Path(e.path).name, e.class_name, e.captions, e.split) for e in examples}


def only(data_sets: dict[str, DataSet], layout: str) -> tuple[Example, ...]:
    assert layout in data_sets
    return data_sets[layout].examples


@pytest.mark.parametrize("writer", sorted(WRITERS))
@pytest.mark.parametrize("folder", ["", "name", "layout"])
def test_a_data_set_is_the_same_by_its_own_folder_and_by_the_one_above(
    tmp_path: Path, writer: str, folder: str
) -> None:
    layout, _, variant = writer.partition(":")
    written = write_data_set(
        layout, tmp_path / {"name": "My data", "layout": layout}.get(folder, ""), variant=variant
    )
    data_sets, faults = recognise_all(tmp_path)
    assert facts(only(data_sets, layout)) == facts(written)
    assert not faults


def test_data_sets_beside_each_other_in_folders_or_unpacked_into_one(tmp_path: Path) -> None:
    apart = {name: write_data_set(name, tmp_path / "a" / name) for name in ("cub", "dogs", "flowers")}
    mixed = {name: write_data_set(name, tmp_path / "b") for name in ("cub", "dogs", "flowers")}
    for parent, written in (("a", apart), ("b", mixed)):
        data_sets, faults = recognise_all(tmp_path / parent)
        assert data_sets.keys() == written.keys()
        assert not faults
        for name, examples in written.items():
            assert facts(data_sets[name].examples) == facts(examples)


def test_karpathys_list_beside_a_copy_of_flickr_gives_its_splits(tmp_path: Path) -> None:
    write_data_set("flickr30k", tmp_path, variant="results")
    written = write_data_set("flickr30k", tmp_path)
    shutil.rmtree(tmp_path / "flickr30k-images")
    assert facts(only(recognise_all(tmp_path)[0], "flickr30k")) == facts(written)


def test_imagenet_is_read_beside_the_lists_of_its_long_tail(tmp_path: Path) -> None:
    write_data_set("imagenet_lt", tmp_path)
    assert recognise_all(tmp_path)[0].keys() == {"imagenet", "imagenet_lt"}


def test_what_is_wrong_with_one_does_not_hide_the_others(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "birds")
    write_data_set("flowers", tmp_path / "plants")
    (tmp_path / "birds/CUB_200_2011/classes.txt").unlink()
    data_sets, faults = recognise_all(tmp_path)
    assert [*data_sets] == ["flowers"]
    assert "`classes.txt` is missing" in str(faults["cub"])
    assert recognise_all(tmp_path, ["flowers"])[1] == {}
    with pytest.raises(BadInput, match="No data set is recognised"):
        recognise_all(tmp_path / "birds/text_c10")
