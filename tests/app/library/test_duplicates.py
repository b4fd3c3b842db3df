"""Groups of images that are the same: equal files, near copies, and no others."""

from pathlib import Path

import pytest
from support.colour_encoder import ColourEncoder
from support.drawings import drawing

from pleinair.app.library.duplicates import Duplicates, find_duplicates, save_duplicates, stored_duplicates
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import Cancelled


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    for seed in range(6):
        drawing(seed).save(folder / f"{seed}.png")
    drawing(0).resize((180, 130)).save(folder / "0 small.jpg", quality=85)
    drawing(0).crop((10, 8, 355, 255)).save(folder / "0 cropped.png")
    (folder / "1 again.png").write_bytes((folder / "1.png").read_bytes())
    return folder


def find(folder: Path, index: Path) -> Duplicates:
    library = Library.open(folder)
    return find_duplicates(library, build_index(library, ColourEncoder(), index))


def test_equal_files_and_near_copies_are_grouped(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    duplicates = find(folder, tmp_path / "index")
    ids = [(group.kind, {copy.id for copy in group.copies}) for group in duplicates.groups]
    assert ids == [("exact", {"1.png", "1 again.png"}), ("near", {"0.png", "0 small.jpg", "0 cropped.png"})]
    sizes = [copy.size for copy in duplicates.groups[1].copies]
    assert sizes == sorted(sizes, reverse=True) and duplicates.images == 9
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    save_duplicates(tmp_path / "index", duplicates)
    assert stored_duplicates(tmp_path / "index") == duplicates


def test_a_search_for_duplicates_can_be_stopped(folder: Path, tmp_path: Path) -> None:
    library = Library.open(folder)

    def stop(done: int, total: int) -> None:
        assert total == 9
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        find_duplicates(library, build_index(library, ColourEncoder(), tmp_path / "index"), stop)
    (tmp_path / "index" / "duplicates.json").write_text("damaged", "utf-8")
    assert stored_duplicates(tmp_path / "index") is None
