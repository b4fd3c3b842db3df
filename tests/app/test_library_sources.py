"""Libraries of tar shards, data sets on disk, Parquet files and URLs: indexed, searched, shown and used."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.colour_encoder import COLOURS, ColourEncoder, square
from support.container_files import parquet, saved_data_set, table, tar
from support.quick_engines import speckled
from typer.testing import CliRunner

from pleinair.app.api import draw, home
from pleinair.app.cli.main import app
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.tools.retrieval import build
from pleinair.tools.retrieval.changes import current_library, save_stamps
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput

HERE = "http://127.0.0.1:8800"
CREDITS = {"license": "CC BY 4.0", "author": "x"}


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


SQUARES = {name: encoded(square(colour)) for name, colour in COLOURS.items()}


def write_tar(folder: Path, images: dict[str, bytes]) -> str:
    files = {f"{name}.png": data for name, data in images.items()}
    files |= {f"{name}.json": json.dumps({"caption": f"a {name}", **CREDITS}).encode() for name in images}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shard-000.tar").write_bytes(tar(files))
    return str(folder)


def age(*paths: Path) -> None:
    """Let files and folders be old enough for their times to tell a change."""
    for path in paths:
        os.utime(path, ns=(time.time_ns() - 10**13,) * 2)


def rows(images: dict[str, bytes], paths: bool = True) -> object:
    names = [f"{name}.png" for name in images] if paths else []
    text, license = [f"a {name}" for name in images], ["CC BY 4.0"] * len(images)
    return table(images.values(), names, text=text, license=license, author=["x"] * len(images))


def write_data_set(folder: Path, images: dict[str, bytes]) -> str:
    return str(saved_data_set(folder, rows(images)))


def write_parquet(folder: Path, images: dict[str, bytes]) -> str:
    return str(parquet(folder / "train.parquet", rows(images), 2))


def write_url(folder: Path, images: dict[str, bytes]) -> str:
    files = fsspec.filesystem("memory")
    below = f"/{folder.parent.name}-{folder.name}"
    for name, data in images.items():
        files.pipe(f"{below}/{name}.png", data)
    lines = [{"file_name": f"{name}.png", "text": f"a {name}", **CREDITS} for name in images]
    files.pipe(f"{below}/metadata.jsonl", "\n".join(map(json.dumps, lines)).encode())
    return f"memory:/{below}"


WRITERS: dict[str, Callable[[Path, dict[str, bytes]], str]] = {
    "tar": write_tar,
    "data set": write_data_set,
    "parquet": write_parquet,
    "url": write_url,
}
ALL = pytest.mark.parametrize("kind", WRITERS)


@ALL
def test_images_are_indexed_found_and_read(tmp_path: Path, kind: str) -> None:
    folder = WRITERS[kind](tmp_path / "birds", SQUARES)
    library = Library.open(folder, cache=tmp_path / "cache")
    assert not library.problems and sorted(item.caption for item in library.items.values()) == [
        f"a {name}" for name in sorted(SQUARES)
    ]
    assert {(item.license, item.author) for item in library.items.values()} == {("CC-BY-4.0", "x")}
    encoder = ColourEncoder()
    index = build.build_index(library, encoder, tmp_path / "index")
    assert (len(index), index.skipped) == (4, ())
    retriever = IndexRetriever(library, index, encoder)
    (hit,) = retriever.search("red", 1)
    assert hit.caption == "a red" and hit.id.endswith("red.png") and hit.score > 0.99
    of_catalogue = Library.of_catalogue(index.catalogue)
    assert dict(of_catalogue.items) == dict(library.items)
    assert of_catalogue.read(of_catalogue.items[hit.id]) == SQUARES["red"]
    assert of_catalogue.picture(hit.id).getpixel((0, 0)) == COLOURS["red"]
    assert of_catalogue.is_current(of_catalogue.items[hit.id])
    assert of_catalogue.location(hit.id) == f"{folder}/{hit.id}"
    with pytest.raises(BadInput, match="no file of its own"):
        of_catalogue.path(hit.id)
    again = build.build_index(Library.open(folder, cache=tmp_path / "cache"), encoder, tmp_path / "index")
    assert len(encoder.batches) == 1 and again.manifest == index.manifest


def test_one_library_of_all_four(tmp_path: Path) -> None:
    names = list(SQUARES)
    folders = [
        write(tmp_path / kind, {names[n]: SQUARES[names[n]]})
        for n, (kind, write) in enumerate(WRITERS.items())
    ]
    library = Library.open(folders)
    assert [item.caption for item in library.items.values()] == ["a green", "a red", "a white", "a blue"]
    index = build.build_index(library, ColourEncoder(), tmp_path / "index")
    of_catalogue = Library.of_catalogue(index.catalogue)
    for id, item in of_catalogue.items.items():
        assert of_catalogue.picture(id).getpixel((0, 0)) == COLOURS[item.caption.split()[1]]


@pytest.mark.parametrize("name", ["shard-000.tar", "train.parquet"])
def test_the_commands_take_a_single_container(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write = write_tar if name.endswith("tar") else write_parquet
    write(place / "one", SQUARES)
    monkeypatch.delenv("PLEINAIR_LIBRARY__FOLDER")
    result = CliRunner().invoke(app, ["index", f"one/{name}"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"4 images of {place}/one/{name} are indexed under hashes")
    found = CliRunner().invoke(app, ["library", "search", "a red", "--library", f"one/{name}"])
    assert f"{place}/one/{name}/red.png" in found.output.replace("\n", ""), found.output


class Killed(BaseException):
    """End of the process."""


@ALL
def test_a_killed_build_goes_on(tmp_path: Path, kind: str) -> None:
    library = Library.open(WRITERS[kind](tmp_path / "birds", SQUARES))
    encoder = ColourEncoder()

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        build.build_index(library, encoder, tmp_path / "index", kill, batch_size=1)
    done = len(encoder.batches)
    index = build.build_index(library, encoder, tmp_path / "index", batch_size=1)
    assert 0 < done < 4 and len(encoder.batches) == 4 and len(index) == 4


def test_a_change_of_a_shard_is_noticed_and_only_new_images_are_embedded(tmp_path: Path) -> None:
    folder = write_tar(tmp_path / "birds", dict(list(SQUARES.items())[:3]))
    age(tmp_path / "birds", tmp_path / "birds/shard-000.tar")
    library, encoder = Library.open(folder), ColourEncoder()
    index = build.build_index(library, encoder, tmp_path / "index")
    save_stamps(tmp_path / "index", index.manifest.catalogue, library.stamps)

    def current() -> Library | None:
        max_pixels = library.max_pixels
        return current_library(tmp_path / "index", folder, readers=(), captions=None, max_pixels=max_pixels)

    opened = current()
    assert opened and opened.catalogue
    with (tmp_path / "birds/shard-000.tar").open("r+b") as file:  # in place: the folder keeps its time
        file.write(tar({f"{name}.png": data for name, data in SQUARES.items()}))
    assert current() is None
    assert not any(map(opened.is_current, opened.items.values()))
    assert len(build.build_index(Library.open(folder), encoder, tmp_path / "index")) == 4
    assert encoder.batches == [3, 1]


@pytest.mark.parametrize("kind", ["tar", "url"])
def test_a_run_is_drawn_from_such_a_library_and_pages_show_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    images = {f"bird{n}": encoded(speckled(16, (30 * n, 90, 200))) for n in range(4)}
    folder = WRITERS[kind](place / "shards", images)
    for path in (place / "shards").rglob("*") if kind == "tar" else ():
        age(path, path.parent)
    monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", folder)
    lines = CliRunner().invoke(app, ["index"]).stdout.splitlines()
    reader = "sidecars" if kind == "tar" else "jsonl"
    assert lines[0] == f"4 images of {folder} are indexed under hashes"
    assert f"{reader}: 4 captions, 4 images with credits" in lines, lines
    with monkeypatch.context() as patch:  # a run lists nothing
        patch.delattr("pleinair.tools.retrieval.roots.opening.contents_of")
        patch.delattr("pleinair.tools.retrieval.roots.remote.RemoteRoot.list")
        patch.delattr("pleinair.tools.retrieval.roots.remote.RemoteRoot.has_image")
        patch.delattr("pleinair.tools.retrieval.library.contents_of")
        result = draw("two things", seed=1)
    references = json.loads(result.sidecar.read_text("utf-8"))["references"]
    assert references and all(each["author"] == "x" for each in references)
    with TestClient(create(Options(workers=0), home()), base_url=HERE) as client:
        page = client.get("/library", headers={"accept": "text/html"}).text
        ids = [address.split('"')[0] for address in page.split('src="')[1:] if "/library/images/" in address]
        assert len(ids) == 4
        for address in ids:
            response = client.get(address)
            assert response.status_code == 200 and response.headers["content-type"].startswith("image/")
