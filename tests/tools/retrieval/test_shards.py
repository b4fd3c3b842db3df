"""Shares of a library that several processes embed, and the index that joins them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from support import colour_encoder as colours
from support.colour_encoder import ColourEncoder, build, paint, write_squares
from support.colour_files import scene

from pleinair.tools.retrieval.build import SHARES, build_index
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import READING, Manifest
from pleinair.tools.retrieval.shards import join_shards, read_shard, write_shard
from pleinair.tools.retrieval.shares import Share, embed_share
from pleinair.tools.types import BadInput, Cancelled

EVERY = (Share(1, 3), Share(2, 3), Share(3, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a library with copies, one with a note, and two that cannot be used."""
    folder = write_squares(tmp_path / "library")
    for number in range(6):
        paint(folder, f"new{number}.png", (number * 40, 90, 200))
    shutil.copy(folder / "blue.png", folder / "azure.png")
    shutil.copy(folder / "red.png", folder / "amber.png")
    scene(80, 60).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-2])
    (folder / "text.png").write_text("no image", encoding="utf-8")
    (folder / "empty.png").touch()
    return folder


def share(
    folder: Path, out: Path, number: Share, index: Path | None = None, **options: Any
) -> tuple[tuple[int, int], ColourEncoder]:
    encoder = options.pop("encoder", None) or ColourEncoder()
    options = {"batch_size": 2, **options}
    counts = embed_share(
        Library.open(folder), encoder, number, out, index or out.with_name("none"), **options
    )
    return counts, encoder


def merge(folder: Path, index: Path, *outs: Path) -> tuple[Index, ColourEncoder]:
    library, encoder = Library.open(folder), ColourEncoder()
    joined, damaged = join_shards(outs, encoder.id, library.items, library.max_pixels)
    assert not damaged
    return build_index(library, encoder, index, joined=joined), encoder


def files_in(out: Path) -> list[Any]:
    shards = [read_shard(path) for path in sorted(out.glob("*.npz"))]
    return [pair for shard in shards if shard for pair in shard.files]


def as_one_build(folder: Path) -> Manifest:
    return build(folder, folder.with_name("undisturbed")).manifest


@given(st.lists(st.integers(0, 10**8), max_size=40), st.integers(1, 50), st.integers(1, 5))
def test_shares_have_each_block_once_without_gaps_and_about_the_same_cost(
    sizes: list[int], count: int, block: int
) -> None:
    library = Library({"": "/nowhere"})
    library.items = {f"{place:03}": Item(f"{place:03}", size, 0) for place, size in enumerate(sizes)}
    parts = [Share(number, count).of(library, block).items for number in range(1, count + 1)]
    assert [id for part in parts for id in part] == list(library.items)
    assert all(int(next(iter(part))) % block == 0 for part in parts if part)
    costs = [sum(item.size + 2**20 for item in part.values()) for part in parts]
    assert not sizes or max(costs) <= sum(costs) / count + block * (max(sizes) + 2**20)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_batches_of_shares_are_those_of_one_process(folder: Path, tmp_path: Path, count: int) -> None:
    """Images that cannot be used shift no later batch, and neither does the number of shares."""
    batches, whole = list[list[str]](), list[list[str]]()

    class Recording(ColourEncoder):
        def encode_images(self, images: Sequence[Any]) -> Any:
            recorded.append([image.tobytes().hex() for image in images])
            return super().encode_images(images)

    recorded = whole
    for name in ("blue.png", "red.png"):  # the originals of copies: an image in two shares is in two batches
        (folder / name).unlink()
    build(folder, tmp_path / "index", Recording(), batch_size=3)
    recorded = batches
    for number in range(1, count + 1):
        share(folder, tmp_path / "out", Share(number, count), encoder=Recording(), batch_size=3)
    assert batches == whole
    assert len(whole[-1]) == 1


def test_few_new_images_of_many_blocks_are_in_one_batch(folder: Path, tmp_path: Path) -> None:
    build(folder, tmp_path / "index", batch_size=3)
    for level, name in enumerate(("amber", "green", "white")):
        paint(folder, f"{name}2.png", (level * 40, 77, 99))
    encoder = ColourEncoder()
    build(folder, tmp_path / "index", encoder, batch_size=6)
    assert encoder.batches == [3]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", "", "1.5/2"])
def test_a_share_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"--shard .*accepted: I/N, such as 1/4"):
        Share.parse(text)
    assert Share.parse(" 2/4 ") == Share(2, 4)


def test_the_joined_index_is_that_of_one_build_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    counts = [share(folder, tmp_path / "out", number)[0] for number in EVERY]
    assert [sum(column) for column in zip(*counts, strict=True)] == [13, 2]
    assert all(usable for usable, _ in counts)
    index, encoder = merge(folder, tmp_path / "index", tmp_path / "out")
    assert (encoder.batches, index.manifest) == ([], as_one_build(folder))
    undisturbed = Index.open(tmp_path / "undisturbed", ColourEncoder())
    assert all(np.array_equal(index.vector(id), undisturbed.vector(id)) for id in undisturbed.ids)
    assert [file.id for file in index.noted] == ["cut.jpg"]


def test_shares_of_machines_with_copies_of_the_library_are_joined(folder: Path, tmp_path: Path) -> None:
    for number in EVERY:
        copy = shutil.copytree(folder, tmp_path / f"copy{number.number}" / "library")
        for path in copy.iterdir():
            os.utime(path, (number.number, number.number))
        share(copy, tmp_path / f"out{number.number}", number)
    outs = [tmp_path / f"out{number.number}" for number in EVERY]
    index, encoder = merge(folder, tmp_path / "index", *reversed(outs))
    assert (encoder.batches, index.manifest) == ([], as_one_build(folder))


def test_an_index_run_takes_the_shares_beside_its_index_and_removes_them(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index" / SHARES
    for number in EVERY[:2]:
        share(folder, out, number, tmp_path / "index")
    expected = as_one_build(folder)
    encoder = ColourEncoder()
    assert build(folder, tmp_path / "index", encoder).manifest == expected
    assert 0 < sum(encoder.batches) < 11
    assert not list(out.glob("*.npz"))


SHARE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from support.colour_encoder import ColourEncoder
from pathlib import Path
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.shares import Share, embed_share

class Dying(ColourEncoder):
    def encode_images(self, images):
        if len(self.batches) == 2:
            os.kill(os.getpid(), 9)
        return super().encode_images(images)

out = Path(sys.argv[3])
embed_share(Library.open(sys.argv[2]), Dying(), Share(1, 1), out, out / "none", batch_size=2)
"""


def test_a_killed_share_loses_at_most_one_batch(folder: Path, tmp_path: Path) -> None:
    tests = str(Path(colours.__file__).parents[1])
    command = [sys.executable, "-c", SHARE, tests, str(folder), str(tmp_path / "out")]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -9
    assert len(list((tmp_path / "out").glob("*.npz"))) == 2
    counts, encoder = share(folder, tmp_path / "out", Share(1, 1))
    assert (counts, sum(encoder.batches)) == ((13, 2), 11 - 3)  # of the second block one is a copy
    index, encoder = merge(folder, tmp_path / "index", tmp_path / "out")
    assert (encoder.batches, index.manifest) == ([], as_one_build(folder))


def test_a_finished_share_costs_nothing_and_neither_do_indexed_images(folder: Path, tmp_path: Path) -> None:
    build(folder, tmp_path / "index")
    out = tmp_path / "out"
    for _ in range(2):
        counts, encoder = share(folder, out, EVERY[0], tmp_path / "index")
        files = sorted(out.iterdir())
        assert sum(counts) and encoder.batches == []
    share(folder, out, EVERY[0], tmp_path / "index")
    assert sorted(out.iterdir()) == files
    for number in EVERY[1:]:
        share(folder, out, number)  # as a machine without that index
    other, encoder = merge(folder, tmp_path / "elsewhere", out)
    assert (encoder.batches, other.manifest) == ([], as_one_build(folder))


def test_a_file_that_was_too_large_is_read_again_when_more_is_allowed(folder: Path, tmp_path: Path) -> None:
    scene(1_250, 1_000).save(folder / "huge.png")
    for max_pixels, count in ((10**6, 13), (2 * 10**6, 14)):
        library = Library.open(folder, max_pixels=max_pixels)
        usable, _ = embed_share(library, ColourEncoder(), Share(1, 1), tmp_path / "out", tmp_path / "none")
        assert usable == count
    joined, _ = join_shards([tmp_path / "out"], "colour-1", library.items, 2 * 10**6)
    assert len(build_index(library, ColourEncoder(), tmp_path / "index", joined=joined)) == 14


def test_equal_vectors_of_two_shares_are_accepted_and_different_ones_refused(
    folder: Path, tmp_path: Path
) -> None:
    share(folder, tmp_path / "a", Share(1, 1))
    share(folder, tmp_path / "b", Share(1, 2))
    library = Library.open(folder)
    joined, _ = join_shards([tmp_path / "a", tmp_path / "b"], "colour-1", library.items, library.max_pixels)
    file, vector = files_in(tmp_path / "a")[0]
    for name, other in (("turned", np.roll(vector, 1)), ("short", np.ones(1, np.float32))):
        write_shard(tmp_path / name, "colour-1", library.max_pixels, [file], {file.sha256: other})
        with pytest.raises(BadInput, match=rf"`{file.id}` has another vector in .*{name}/.* than in .*/a/"):
            join_shards([tmp_path / "a", tmp_path / name], "colour-1", library.items, library.max_pixels)
    assert len(joined.files) == 15


def test_shards_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    share(folder, tmp_path / "other", EVERY[0], encoder=ColourEncoder("colour-2"))
    share(folder, tmp_path / "old", Share(1, 1))
    for path in (tmp_path / "old").glob("*.npz"):
        with np.load(path) as data:
            about = data["about"].tobytes().replace(f'"reading": {READING}'.encode(), b'"reading": 1')
            np.savez(path, vectors=data["vectors"], about=np.frombuffer(about, np.uint8))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.npz").write_bytes(b"PK")
    library = Library.open(folder)
    refusals = {
        "nowhere": "no such folder",
        "empty": "no shards in it",
        "damaged": "only damaged shards in it",
        "other": "vectors of the encoder colour-2, not of colour-1",
        "old": "a version of pleinair that reads images otherwise",
    }
    for name, reason in refusals.items():
        with pytest.raises(BadInput, match=f"{name}.* {reason}|{name}: {reason}"):
            join_shards([tmp_path / name], "colour-1", library.items, library.max_pixels)
    share(folder, tmp_path / "out", EVERY[0])
    with pytest.raises(BadInput, match="of other images, such as `amber.png`"):
        join_shards([tmp_path / "out"], "colour-1", {"x.png": Item("x.png", 1, 1)}, library.max_pixels)


def test_a_damaged_shard_is_named_and_its_images_are_embedded(folder: Path, tmp_path: Path) -> None:
    share(folder, tmp_path / "out", Share(1, 1), batch_size=4)
    path = min((tmp_path / "out").glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    path.write_bytes(path.read_bytes()[:200])
    library, encoder = Library.open(folder), ColourEncoder()
    joined, damaged = join_shards([tmp_path / "out"], "colour-1", library.items, library.max_pixels)
    assert damaged == [path]
    assert build_index(library, encoder, tmp_path / "index", joined=joined).manifest == as_one_build(folder)
    assert sum(encoder.batches) == 2  # the shard has three images; a copy of one is in another shard


def test_a_folder_that_cannot_take_a_share_is_refused(folder: Path, tmp_path: Path) -> None:
    share(folder, tmp_path / "other", EVERY[0], encoder=ColourEncoder("colour-2"))
    before = sorted((tmp_path / "other").iterdir())
    with pytest.raises(BadInput, match="vectors of the encoder colour-2"):
        share(folder, tmp_path / "other", EVERY[0])
    assert sorted((tmp_path / "other").iterdir()) == before
    with pytest.raises(BadInput, match="it is a file; must be a folder"):
        share(folder, folder / "red.png", EVERY[0])
    (tmp_path / "out").mkdir()
    lock = FileLock(tmp_path / "out" / ".1-of-3.lock")
    with lock, pytest.raises(BadInput, match="Another process embeds shard 1/3"):
        share(folder, tmp_path / "out", EVERY[0])
    assert share(folder, tmp_path / "out", EVERY[0])[0] != (0, 0)


def test_a_share_can_be_stopped_and_an_empty_one_is_no_fault(folder: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        share(folder, tmp_path / "out", EVERY[0], on_progress=stop, batch_size=1)
    assert len(list((tmp_path / "out").glob("*.npz"))) == 1
    many = [Share(number, 100) for number in range(1, 101)]
    assert sum(share(folder, tmp_path / "out", number)[0][0] for number in many) == 13


def sizes_of(index: Index) -> Iterator[tuple[str, int]]:
    return ((file.id, file.width) for file in index.catalogue.files())


def test_a_copy_in_a_later_share_supplies_the_size_and_the_vector(folder: Path, tmp_path: Path) -> None:
    for number in reversed(EVERY):  # red.png is in the last, its copy in the first
        share(folder, tmp_path / "out", number)
    index, _ = merge(folder, tmp_path / "index", tmp_path / "out")
    assert index.manifest == as_one_build(folder)


def test_copies_and_touched_files_keep_their_sizes_and_notes(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "cut.jpg", folder / "zoom.jpg")
    index = build(folder, tmp_path / "index", batch_size=1)
    assert dict(sizes_of(index))["zoom.jpg"] == 80
    os.utime(folder / "cut.jpg", (1, 1))
    index = build(folder, tmp_path / "index")
    assert dict(sizes_of(index))["cut.jpg"] == 80
    assert [file.id for file in index.noted] == ["cut.jpg", "zoom.jpg"]
