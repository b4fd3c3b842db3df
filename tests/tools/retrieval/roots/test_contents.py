import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.container_files import arrow, parquet, png, saved_data_set, table, tar

from pleinair.tools.retrieval.containers import listing
from pleinair.tools.retrieval.containers.container import Container, RandomAccess
from pleinair.tools.retrieval.readers.folder import Folder
from pleinair.tools.retrieval.readers.names import ClassFolders
from pleinair.tools.retrieval.readers.rows import RowColumns
from pleinair.tools.retrieval.readers.sidecars import Sidecars
from pleinair.tools.retrieval.roots.opening import (
    addresses_of,
    by_prefix,
    contents_of,
    has_images,
    root_of,
)
from pleinair.tools.retrieval.roots.root import Contents
from pleinair.tools.types import BadInput, NoLibrary

IMAGES = [png(colour) for colour in ("red", "lime", "blue", "gold")]
SHARD = {
    "a.jpg": IMAGES[0],
    "a.json": json.dumps(
        {"caption": "a wren", "url": "https://example.org/a", "license": "CC BY 4.0"}
    ).encode(),
    "b.png": IMAGES[1],
    "b.txt": b"a finch",
    "b.cls": b"7",
    "c": IMAGES[2],
    "__MACOSX/._c.png": b"x",
}


def contents(folder: Path, cache: Path | None = None) -> Contents:
    (address,) = addresses_of(folder)
    return contents_of({"": root_of(address)}, cache)[""]


def captions(listed: Contents) -> dict[str, str]:
    folder = Folder(Path(listed.root.address), listed.listing.images, listed.listing.others, source=listed)
    found = dict[str, str]()
    for reader in (RowColumns(), Sidecars(), ClassFolders()):
        for description in reader.read(folder):
            found.setdefault(description.image, description.caption)
    return found


def test_a_shard_in_a_folder_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds/0.tar").write_bytes(tar(SHARD))
    (tmp_path / "d.png").write_bytes(IMAGES[3])
    listed = contents(tmp_path)
    assert sorted(listed.listing.images) == [
        "birds/0.tar/a.jpg",
        "birds/0.tar/b.png",
        "birds/0.tar/c",
        "d.png",
    ]
    assert sorted(listed.listing.others) == ["birds/0.tar/a.json", "birds/0.tar/b.cls", "birds/0.tar/b.txt"]
    assert listed.listing.left_out == ["birds/0.tar/__MACOSX/._c.png"]
    assert [listed.read(path, 10**6) for path in sorted(listed.listing.images)] == IMAGES
    assert captions(listed) == {
        "birds/0.tar/a.jpg": "a wren",
        "birds/0.tar/b.png": "a finch",
        "birds/0.tar/c": "birds",  # and not the name of the shard
    }
    time = (tmp_path / "birds/0.tar").stat().st_mtime_ns
    assert listed.stamp("birds/0.tar/a.jpg") == (len(IMAGES[0]), time)
    assert listed.place("birds/0.tar/b.png").startswith("11:")
    assert listed.place("d.png") == ""


def test_a_saved_data_set_has_its_rows_and_its_license(tmp_path: Path) -> None:
    rows = table(IMAGES, label=[0, 1, 0, 1], license=[None, "CC0", None, None])
    saved_data_set(tmp_path / "train", rows, license="cc-by-4.0", homepage="https://example.org")
    arrow(tmp_path / "train/cache-0123456789abcdef.arrow", rows)
    listed = contents(tmp_path)
    assert listed.listing.left_out == ["train/cache-0123456789abcdef.arrow"]
    folder = Folder(tmp_path, listed.listing.images, listed.listing.others, source=listed)
    facts = {each.image: (each.caption, each.license, each.source) for each in RowColumns().read(folder)}
    assert facts["train/data-00000-of-00002.arrow/000002.png"] == ("finch", "CC0-1.0", "https://example.org")
    assert facts["train/data-00001-of-00002.arrow/000001.png"] == ("wren", "CC-BY-4.0", "https://example.org")
    assert len(facts) == 4


@pytest.mark.parametrize(
    "write", [lambda path: parquet(path, table(IMAGES)), lambda path: path.write_bytes(tar(SHARD))]
)
def test_a_container_is_a_library_by_itself(tmp_path: Path, write: Callable[[Path], object]) -> None:
    path = tmp_path / ("x.tar" if "tar" in write.__code__.co_names else "x.parquet")
    write(path)
    listed = contents(path)
    first = sorted(listed.listing.images)[0]
    assert first in ("a.jpg", "000001.png")
    assert listed.read(first, 10**6) == IMAGES[0]
    assert listed.stamp(first) == (len(IMAGES[0]), path.stat().st_mtime_ns)
    assert has_images(path)


def test_the_hub_cache_is_read_through_its_links(tmp_path: Path) -> None:
    hub = tmp_path / "datasets--org--birds"
    parquet(hub / "blobs/0123", table(IMAGES, text=["a wren"] * 4))
    (hub / "blobs/4567").write_bytes(IMAGES[0])
    snapshot = hub / "snapshots/main"
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "data/train-00000-of-00001.parquet").symlink_to("../../../blobs/0123")
    (snapshot / "a.png").symlink_to("../../blobs/4567")
    for root, below in ((hub, "snapshots/main/"), (snapshot, "")):
        listed = contents(root)
        images = [f"{below}data/train-00000-of-00001.parquet/{n:06d}.png" for n in range(1, 5)]
        assert (sorted(listed.listing.images), listed.listing.problems) == ([f"{below}a.png", *images], [])
        assert captions(listed)[images[0]] == "a wren"


def test_a_table_without_images_stays_with_its_reader(tmp_path: Path) -> None:
    import pyarrow as pa

    parquet(tmp_path / "metadata.parquet", pa.table({"file_name": ["a.png"], "text": ["a wren"]}))
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds/metadata.parquet").write_bytes(b"PAR1 damaged")
    (tmp_path / "a.png").write_bytes(IMAGES[0])
    listed = contents(tmp_path)
    assert listed.listing.others == ["birds/metadata.parquet", "metadata.parquet"]
    assert (listed.listing.images, listed.listing.problems) == (["a.png"], [])


def test_what_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar(SHARD)))
    (tmp_path / "b.tar").write_bytes(b"no tar" * 100)
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    assert sorted(map(str, contents(tmp_path).listing.problems)) == [
        "a.tar.gz: a compressed tar is not read in place: unpack it, or store it as plain .tar.",
        "b.tar: not a tar, or damaged.",
        "c.parquet: damaged, or of a kind that is not read.",
    ]
    assert not has_images(tmp_path)


def test_progress_counts_containers(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.tar").write_bytes(tar(SHARD))
    progress = list[tuple[int, int]]()
    contents_of({"": root_of(str(tmp_path))}, on_progress=lambda *counts: progress.append(counts))
    assert progress == [(1, 3), (2, 3), (3, 3)]


def test_an_unchanged_container_is_not_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard, cache = tmp_path / "library/0.tar", tmp_path / "cache"
    shard.parent.mkdir()
    shard.write_bytes(tar(SHARD))
    first = contents(shard.parent, cache)
    opened = list[str]()
    real = listing.container_of

    def opening(name: str, file: RandomAccess) -> Container:
        opened.append(name)
        return real(name, file)

    monkeypatch.setattr("pleinair.tools.retrieval.roots.root.container_of", opening)
    again = contents(shard.parent, cache)
    assert (again.listing, again.stored, opened) == (first.listing, first.stored, [])
    shard.write_bytes(tar({"new.png": IMAGES[0]}))
    assert contents(shard.parent, cache).listing.images == ["0.tar/new.png"]
    assert opened == ["0.tar"]


def test_a_listing_that_was_stopped_or_damaged_is_made_again(tmp_path: Path) -> None:
    shard, cache = tmp_path / "library/0.tar", tmp_path / "cache"
    shard.parent.mkdir()
    shard.write_bytes(tar({f"{n}.png": b"" for n in range(3000)}))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        contents_of({"": root_of(str(shard))}, cache, stop)
    assert not list(cache.iterdir())
    assert len(contents(shard, cache).listing.images) == 3000
    (path,) = cache.iterdir()
    path.write_bytes(b"damaged")
    assert len(contents(shard, cache).listing.images) == 3000


def test_a_changed_container_is_opened_anew(tmp_path: Path) -> None:
    shard = tmp_path / "0.tar"
    shard.write_bytes(tar({"a.png": b"aaa"}))
    listed = contents(tmp_path)
    assert listed.read("0.tar/a.png", 10**6) == b"aaa"
    other = tmp_path / "other"
    other.write_bytes(tar({"a.png": b"bbb"}))
    os.utime(other, ns=(1, 1))
    shutil.move(other, shard)
    assert listed.read("0.tar/a.png", 10**6) == b"bbb"
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        listed.read("0.tar/a.png", 10**6)


def test_addresses_are_checked_and_made_one(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    assert addresses_of([f"file://{tmp_path}/a", tmp_path / "a/b", tmp_path / "link"]) == (f"{tmp_path}/a",)
    assert addresses_of(["memory://x/y/", "memory://x/y/z", "memory://x"]) == ("memory://x",)
    assert by_prefix(["memory://x/birds", "/x/birds", "/y/fish"]) == {
        "memory:/x/birds/": "memory://x/birds",
        "x/birds/": "/x/birds",
        "y/fish/": "/y/fish",
    }
    for url in ("s3://key:secret@bucket/a", "https://x.org/a?token=secret", "zip://a::s3://b"):
        with pytest.raises(BadInput) as error:
            addresses_of(url)
        assert "secret" not in str(error.value)
    with pytest.raises(BadInput, match="no such storage"):
        addresses_of("nonsense://x")
    with pytest.raises(NoLibrary, match="No folder"):
        addresses_of(tmp_path / "absent")


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import _registry

    for module in ("obstore", "s3fs", "pleinair.tools.storage.obstore_files"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(BadInput, match="s3:// needs a package") as error:
        addresses_of("s3://bucket/birds")
    assert "pip install 'pleinair[cluster]'" in error.value.remedy
