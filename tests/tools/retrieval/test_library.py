from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput


def paint(folder: Path, *ids: str) -> None:
    for number, id in enumerate(ids):
        (folder / id).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / id)


def describe(folder: Path, *lines: object, name: str = "metadata.jsonl") -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / name).write_text(text + "\n", encoding="utf-8")


def test_a_folder_without_metadata_is_a_library(tmp_path: Path) -> None:
    paint(tmp_path, "b.png", "a.jpg", "deep/er/c.PNG", "deep/d.webp")
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    library = Library.open(tmp_path)
    assert list(library.items) == ["a.jpg", "b.png", "deep/d.webp", "deep/er/c.PNG"]
    item = library.items["b.png"]
    assert (item.caption, item.license, item.source, item.author) == ("", "unknown", "", "")
    assert item.size == (tmp_path / "b.png").stat().st_size
    assert (library.problems, library.others) == ((), {".txt": 1})
    assert library.picture("deep/d.webp").mode == "RGB"


def test_metadata_is_read(tmp_path: Path) -> None:
    paint(tmp_path, "a.png", "b.png", "birds/c.png")
    describe(
        tmp_path,
        {"file_name": "a.png", "text": "a finch", "license": "CC0", "source": "s", "author": "x"},
        {"file_name": "birds/c.png", "caption": " a wren ", "source_url": "https://example.org/wren"},
        {"file_name": "./b.png", "text": None, "extra": 3},
    )
    library = Library.open(tmp_path)
    first, third = library.items["a.png"], library.items["birds/c.png"]
    assert (first.caption, first.license, first.source, first.author) == ("a finch", "CC0-1.0", "s", "x")
    assert (third.caption, third.license) == ("a wren", "unknown")
    assert third.source == "https://example.org/wren"
    assert library.problems == ()


def test_boxes_are_read_by_name(tmp_path: Path) -> None:
    paint(tmp_path, "a.png", "b.png")
    boxes = {"blue jay": [0, 0.25, 0.5, 1], "a sedan": [0.5, 0.5, 0.9, 0.9]}
    describe(tmp_path, {"file_name": "a.png", "boxes": boxes}, {"file_name": "b.png", "boxes": None})
    library = Library.open(tmp_path)
    assert library.problems == ()
    assert library.items["a.png"].hit(1.0).boxes == {name: tuple(box) for name, box in boxes.items()}
    assert library.items["b.png"].boxes == {}
    assert len({library.items["a.png"], library.items["b.png"]}) == 2  # hashable in spite of its boxes


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 1, 1]], "not an object"),
        ({"finch": [0, 0, 1]}, "'finch' is [0, 0, 1]; accepted: [x0, y0, x1, y1]"),
        ({"finch": [0, 0, 1, 1, 1]}, "'finch'"),
        ({"finch": [0, 0, 1, True]}, "'finch'"),
        ({"finch": [0, 0, 1, "1"]}, "'finch'"),
        ({"finch": [0, 0, 64, 64]}, "'finch' is [0, 0, 64, 64]"),
        ({"finch": [0.5, 0, 0.5, 1]}, "'finch'"),
        ({"finch": [0.5, 0, 0.2, 1]}, "'finch'"),
        ({"finch": [-0.1, 0, 0.2, 1]}, "'finch'"),
        ({"finch": [0, 0, float("nan"), 1]}, "'finch'"),
        ({"finch": None}, "'finch' is None"),
        ({" ": [0, 0, 1, 1]}, "without a word"),
        ({"Finch": [0, 0, 1, 1], "finch ": [0, 0, 1, 1]}, "a second box"),
    ],
)
def test_faulty_boxes_are_reported_and_the_rest_of_the_line_counts(
    tmp_path: Path, boxes: object, message: str
) -> None:
    paint(tmp_path, "a.png", "b.png")
    describe(
        tmp_path,
        {"file_name": "b.png", "text": "a wren"},
        {"file_name": "a.png", "text": "a finch", "boxes": boxes},
    )
    library = Library.open(tmp_path)
    (problem,) = library.problems
    assert (problem.file, problem.line, problem.field) == ("metadata.jsonl", 2, "boxes")
    assert str(problem).startswith("metadata.jsonl, line 2: ") and message in str(problem)
    assert (library.items["a.png"].caption, library.items["a.png"].boxes) == ("a finch", {})
    assert library.items["b.png"].caption == "a wren"


def test_a_subfolder_may_have_metadata_of_its_own(tmp_path: Path) -> None:
    paint(tmp_path, "birds/a.png")
    describe(tmp_path / "birds", {"file_name": "a.png", "text": "a finch"})
    assert Library.open(tmp_path).items["birds/a.png"].caption == "a finch"


def test_every_faulty_line_is_reported_with_its_number(tmp_path: Path) -> None:
    paint(tmp_path, "a.png")
    describe(
        tmp_path,
        "{not json",
        "",
        "[1, 2]",
        {"text": "a finch"},
        {"file_name": "absent.png"},
        {"file_name": "a.png", "text": "a finch"},
        {"file_name": "a.png", "text": "again"},
        {"file_name": "a.png", "text": 7},
        "[" * 100_000,
        '{"file_name": ' + "9" * 5000 + "}",
    )
    library = Library.open(tmp_path)
    assert [problem.line for problem in library.problems] == [1, 3, 4, 5, 8, 9, 10]
    assert "absent.png" in library.problems[3].text
    assert library.items["a.png"].caption == "a finch\nagain"


def test_invalid_bytes_invalidate_their_line_only(tmp_path: Path) -> None:
    paint(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_bytes(
        b'\xef\xbb\xbf{"file_name": "a.png", "text": "a finch"}\r\n\xff\xfe\x00\r\n'
    )
    library = Library.open(tmp_path)
    assert library.items["a.png"].caption == "a finch"
    assert list(map(str, library.problems)) == ["metadata.jsonl, line 2: not a JSON object."]


@pytest.mark.parametrize(
    "name", ["../a.png", "birds/../../a.png", "/etc/passwd", "birds\\a.png", "a\n.png", "..", "a.png\0"]
)
def test_a_file_name_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    library_folder = tmp_path / "library"
    paint(tmp_path, "a.png")
    paint(library_folder, "a.png", "birds/b.png")
    describe(library_folder, {"file_name": name, "text": "stolen"})
    library = Library.open(library_folder)
    assert list(library.items) == ["a.png", "birds/b.png"]
    assert [item.caption for item in library.items.values()] == ["", "birds"]
    assert library.problems[0].line == 1


def test_links_out_of_the_folder_are_left_out(tmp_path: Path) -> None:
    inside, outside = tmp_path / "library", tmp_path / "elsewhere"
    paint(inside, "a.png")
    paint(outside, "secret.png")
    (inside / "link.png").symlink_to(outside / "secret.png")
    (inside / "folder").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (inside / "broken.png").symlink_to(inside / "nothing.png")
    library = Library.open(inside)
    assert list(library.items) == ["a.png"]
    problems = ["broken.png: a link to what does not exist; left out."]
    problems += [f"{name}: a link out of the library; left out." for name in ("folder", "link.png")]
    assert list(map(str, library.problems)) == problems


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    paint(tmp_path, "a.png", ".trash/b.png", ".c.png")
    assert list(Library.open(tmp_path).items) == ["a.png"]


def test_unprintable_file_names_are_reported(tmp_path: Path) -> None:
    paint(tmp_path, "finch\u202fü \u200d.png", "line\nbreak.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "ok.png")
    os.rename(os.fsencode(tmp_path / "ok.png"), os.fsencode(tmp_path) + b"/\xff.png")
    library = Library.open(tmp_path)
    assert list(library.items) == ["finch\u202fü \u200d.png"]
    problems = " ".join(map(str, library.problems))
    assert "\\udcff.png" in problems and "line\\nbreak.png" in problems


@pytest.mark.parametrize("contents", ["nothing", "empty", "file", "no images"])
def test_a_folder_without_images_is_refused_with_what_is_accepted(tmp_path: Path, contents: str) -> None:
    folder = tmp_path / "library"
    if contents == "file":
        folder.write_text("", encoding="utf-8")
    elif contents != "nothing":
        folder.mkdir()
    if contents == "no images":
        describe(folder, {"file_name": "a.png"})
    with pytest.raises(BadInput, match=r"accepted: a folder of images \(\.png"):
        Library.open(folder)


def test_an_unknown_id_is_refused(tmp_path: Path) -> None:
    paint(tmp_path, "a.png")
    for id in ("b.png", "../a.png", ""):
        with pytest.raises(BadInput, match="No image"):
            Library.open(tmp_path).picture(id)


def test_a_damaged_image_is_reported_by_its_id(tmp_path: Path) -> None:
    paint(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(b"text")
    with pytest.raises(BadPicture, match="`b.png`: not an image"):
        Library.open(tmp_path).picture("b.png")
