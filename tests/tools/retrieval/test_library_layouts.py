"""Layouts of libraries as people have them: a table of files with the captions and credits they must give."""

from __future__ import annotations

import io
import json
import time
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pleinair.tools.registry import BrokenPlugin
from pleinair.tools.retrieval.library import Library, Source
from pleinair.tools.retrieval.licenses import spdx
from pleinair.tools.retrieval.readers.folder import Description, Folder, name_key
from pleinair.tools.retrieval.readers.names import subject_of
from pleinair.tools.retrieval.roots.opening import addresses_of, has_images
from pleinair.tools.types import BadInput

_BUFFER = io.BytesIO()
Image.new("RGB", (4, 4), "red").save(_BUFFER, "PNG")
PNG: str | bytes = _BUFFER.getvalue()
WREN, FINCH = "a wren", "a finch"
DECOMPOSED = unicodedata.normalize("NFD", "müller.png")


def write(root: Path, files: Mapping[str, Any]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def captions(library: Library) -> dict[str, str]:
    return {id: item.caption for id, item in library.items.items()}


def problems(library: Library) -> list[str]:
    return list(map(str, library.problems))


def lines(*records: object) -> str:
    return "\n".join(map(json.dumps, records))


TABLES: list[tuple[str, str | bytes]] = [
    ("metadata.jsonl", lines({"file_name": "a.png", "text": WREN}, {"file_name": "b.png", "text": FINCH})),
    ("metadata.jsonl", lines({"image": "a.png", "prompt": WREN}, {"file": "b.png", "description": FINCH})),
    ("metadata.jsonl", json.dumps([{"path": "a.png", "caption": WREN}, {"path": "b.png", "caption": FINCH}])),
    (
        "metadata.jsonl",
        json.dumps([{"path": "a.png", "caption": WREN}, {"path": "b.png", "caption": FINCH}], indent=2),
    ),
    (
        "metadata.jsonl",
        json.dumps({"file": "a.png", "text": WREN}, indent=2)
        + "\n"
        + json.dumps({"file": "b.png", "text": FINCH}, indent=2),
    ),
    ("metadata.jsonl", lines({"File Name": "a.png", "TEXT": [WREN]}, {"image-path": "b.png", "Text": FINCH})),
    ("metadata.json", json.dumps([{"file_name": "a.png", "text": WREN}, {"image": "b.png", "text": FINCH}])),
    ("metadata.json", json.dumps({"a.png": WREN, "b.png": {"caption": FINCH}}, indent=1)),
    ("captions.json", json.dumps({"a": WREN, "b": [FINCH]})),
    (
        "captions.json",
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
                "annotations": [{"image_id": 2, "caption": FINCH}, {"image_id": 1, "caption": WREN}],
            }
        ),
    ),
    ("metadata.csv", f"file_name,text\r\na.png,{WREN}\r\nb.png,{FINCH}\r\n"),
    ("metadata.csv", f'text;file_name\n"{WREN}";a.png\n{FINCH};b.png\n'),
    ("metadata.csv", f"\n\na.png,{WREN}\nb.png,{FINCH}\n"),  # no head
    ("METADATA.CSV", f"image,id,caption\na.png,1,{WREN}\nb.png,2,{FINCH}\n"),
    ("metadata.tsv", f"file_name\ttext\na.png\t{WREN}\nb.png\t{FINCH}\n"),
    ("metadata.csv", f"sep=;\r\nfile_name;text\r\na.png;{WREN}\r\nb.png;{FINCH}\r\n"),
    ("metadata.tsv", f"{WREN}\ta.png\n{FINCH}\tb.png\n"),  # no head
    ("metadata.csv", f"\ufefffile_name,text\na.png,{WREN}\nb.png,{FINCH}\n"),
    ("metadata.csv", f"file_name,text\na.png,{WREN}\nb.png,{FINCH}\n".encode("utf-16")),
    ("metadata.csv", f"file_name,text\na.png,{WREN}\nb.png,{FINCH}\n".encode("utf-16-le")),
    ("metadata.jsonl", lines({"file_name": "A.PNG", "text": WREN}, {"file_name": "./b.png", "text": FINCH})),
    ("metadata.jsonl", lines({"file_name": "a", "text": WREN}, {"file_name": "x/../b.png", "text": FINCH})),
    (
        "metadata.jsonl",
        lines(
            {"file_name": "C:\\Users\\me\\photos\\a.png", "text": WREN},
            {"file_name": "/mnt/photos/b.png", "text": FINCH},
        ),
    ),
]


@pytest.mark.parametrize(("name", "content"), TABLES)
def test_a_table_captions_both_images(tmp_path: Path, name: str, content: str | bytes) -> None:
    library = Library.open(write(tmp_path, {"a.png": PNG, "b.png": PNG, name: content}))
    assert (captions(library), problems(library)) == ({"a.png": WREN, "b.png": FINCH}, [])
    suffix = name.lower().rpartition(".")[2]
    assert library.sources == (Source(suffix, captions=2),)
    assert library.others == {}


CONVERSATIONS = [
    {
        "image": name,
        "conversations": [{"from": "human", "value": "Describe."}, {"from": "gpt", "value": text}],
    }
    for name, text in (("a.png", WREN), ("b.png", FINCH))
]
COCO = {
    "licenses": [{"id": 3, "name": "Attribution", "url": "http://creativecommons.org/licenses/by/2.0/"}],
    "images": [{"id": 1, "license": 3, "file_name": "a.png"}, {"id": 2, "license": 3, "file_name": "b.png"}],
    "annotations": [{"image_id": 2, "caption": FINCH}, {"image_id": 1, "caption": WREN}],
}
SETS: list[tuple[str, str, str]] = [  # folder of the images, a table of a usual data set
    ("train2017", "annotations/captions_train2017.json", json.dumps(COCO)),
    ("train2017", "captions.json", json.dumps(COCO)),
    ("images", "results.csv", f"image_name| number| comment\na.png| 0| {WREN}\nb.png| 0| {FINCH}\n"),
    ("Images", "captions.txt", f"image,caption\na.png,{WREN}\nb.png,{FINCH}\n"),
    ("Images", "text/Flickr8k.token.txt", f"a.png#0\t{WREN}\nb.png#0\t{FINCH}\n"),
    (".", "blip_laion_cc_sbu_558k.json", json.dumps(CONVERSATIONS)),
    ("train", "labels.csv", f"image_id,label\na,{WREN}\nb,{FINCH}\n"),
    (
        "data",
        "meta_lat.json",
        json.dumps({"/workspace/data/a": {"tags": WREN}, "/w/data/b": {"caption": FINCH}}),
    ),
    (
        "img",
        "set/data.jsonl",
        lines({"image": "img/a.png", "prompt": WREN}, {"image": "img/b.png", "text": FINCH}),
    ),
]


@pytest.mark.parametrize(("place", "name", "content"), SETS)
def test_tables_of_usual_data_sets_caption_their_images(
    tmp_path: Path, place: str, name: str, content: str
) -> None:
    files = {f"{place}/a.png": PNG, f"{place}/b.png": PNG, name: content, "notes.json": '{"a": [1]}'}
    library = Library.open(write(tmp_path, files))
    assert (list(captions(library).values()), problems(library)) == ([WREN, FINCH], [])
    assert library.others == {".json": 1}
    if "annotations" in content:
        assert {item.license for item in library.items.values()} == {"CC-BY-2.0"}


PATHS: list[tuple[str, str, list[str]]] = [  # file name in a table at the root, image, images of the library
    ("/old/place/x/1.png", "x/1.png", ["x/1.png", "y/1.png"]),
    ("D:\\set\\Y\\1.PNG", "y/1.png", ["x/1.png", "y/1.png"]),
    ("/old/1.png", "", ["x/1.png", "y/1.png"]),
    ("1.png", "x/1.png", ["x/1.png"]),
    ("1.png", "", ["x/1.png", "y/1.png"]),
    ("train/1.png", "", ["test/1.png"]),
    ("1.png", "", ["2.png", "x/1.png"]),
]


@pytest.mark.parametrize(("name", "image", "images"), PATHS)
def test_a_path_of_another_place_means_the_image_that_ends_alike(
    tmp_path: Path, name: str, image: str, images: list[str]
) -> None:
    table = json.dumps({"file_name": name, "license": "MIT"})
    library = Library.open(write(tmp_path, {"metadata.jsonl": table, **dict.fromkeys(images, PNG)}))
    assert [id for id, item in library.items.items() if item.license == "MIT"] == ([image] if image else [])
    assert len(library.problems) == (not image)


XMP = """<?xpacket begin="\ufeff"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description>
<dc:description><rdf:Alt>
<rdf:li xml:lang="x-default">a small wren</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>"""
TAKEOUT = '{"title": "wren.png", "description": "a small wren"}'
SIDECARS: list[tuple[dict[str, str | bytes], str, str]] = [
    ({"wren.txt": "a small wren\n"}, "a small wren", "sidecars"),
    ({"wren.caption": "a small wren"}, "a small wren", "sidecars"),
    ({"WREN.TXT": "a small wren"}, "a small wren", "sidecars"),
    ({"wren.png.txt": "a small wren", "wren.txt": "another"}, "a small wren", "sidecars"),
    ({"wren.json": '{"caption": "a small wren", "url": "https://example.org"}'}, "a small wren", "sidecars"),
    ({"wren.png.json": '{"title": "wren.png", "description": "a small wren"}'}, "a small wren", "sidecars"),
    ({"wren.png.supplemental-metadata.json": TAKEOUT}, "a small wren", "sidecars"),
    ({"wren.png.suppl.json": TAKEOUT}, "a small wren", "sidecars"),
    ({"wren.info.json": '{"title": "a small wren"}'}, "a small wren", "sidecars"),
    ({"wren.json": '{"title": "File:Wren.png"}'}, "wren", "file_names"),
    ({"wren.json": '{"description": "<p>a <b>small</b> wren</p>"}'}, "a small wren", "sidecars"),
    ({"wren.json": '{"description": "a small <wren>"}'}, "a small <wren>", "sidecars"),
    ({"wren.xmp": XMP}, "a small wren", "sidecars"),
    ({"wren.png.xmp": XMP.encode("utf-8-sig")}, "a small wren", "sidecars"),
    ({"wren.xmp": "no XMP", "train.csv": "file,text\nwren.png,a small wren"}, "a small wren", "other_tables"),
    ({"wren.txt": "beside", "train.csv": "file,text\nwren.png,in a table"}, "beside", "sidecars"),
    ({"metadata.csv": "file,text\nwren.png,a\nwren.png,a\nwren.png,b"}, "a\nb", "csv"),
    ({"wren.txt": "крапивник".encode("cp1251")}, "wren", "file_names"),
    ({"wren.txt": "ミソサザイ".encode("shift_jis")}, "wren", "file_names"),
    ({"wren.txt": "A wren.\nde.utf8=Ein Zaunkönig.\n"}, "A wren.", "sidecars"),
    ({"wren.txt": "A wren\non a branch.\n\nNotes: none"}, "A wren on a branch.", "sidecars"),
    ({"wren.txt": "Zaunkönig".encode("latin-1")}, "Zaunkönig", "sidecars"),
    ({"wren.txt": "Zaunkönig".encode("utf-16")}, "Zaunkönig", "sidecars"),
    ({"wren.txt": "0 0.5 0.5 0.2 0.2"}, "wren", "file_names"),
    ({"wren.txt": ""}, "wren", "file_names"),
    ({"wren.txt": bytes(range(256))}, "wren", "file_names"),
    ({"wren.txt": "beside", "metadata.csv": "file,text\nwren.png,in the table"}, "in the table", "csv"),
    (
        {
            "metadata.csv": "file,text\nwren.png,second",
            "metadata.jsonl": '{"file": "wren.png", "text": "first"}',
        },
        "first",
        "jsonl",
    ),
    ({"wren.txt": "beside", "metadata.csv": "file,license\nwren.png,cc0"}, "beside", "sidecars"),
]


@pytest.mark.parametrize(("files", "caption", "reader"), SIDECARS)
def test_the_most_specific_reader_supplies_the_caption(
    tmp_path: Path, files: dict[str, str | bytes], caption: str, reader: str
) -> None:
    item = Library.open(write(tmp_path, {"wren.png": PNG, **files})).items["wren.png"]
    assert (item.caption, item.captioned_by) == (caption, reader)


def test_a_sidecar_counts_for_the_images_of_a_post_and_the_edited_and_second_file(tmp_path: Path) -> None:
    files = {
        **dict.fromkeys(("post_1.png", "post_2.png", "b(1).png", "c-edited.png"), PNG),
        "post.txt": WREN,
        "post_2.txt": FINCH,
        "b.png.supplemental-metadata(1).json": '{"title": "b.png", "description": "b"}',
        "c.png.json": '{"description": "c", "license": {"name": "CC0"}, "author": {"name": "Ada"}}',
    }
    library = Library.open(write(tmp_path, files))
    assert captions(library) == {
        "b(1).png": "b",
        "c-edited.png": "c",
        "post_1.png": WREN,
        "post_2.png": FINCH,
    }
    assert (library.items["c-edited.png"].license, library.items["c-edited.png"].author) == ("CC0-1.0", "Ada")


def test_credit_is_read_field_by_field_from_several_readers(tmp_path: Path) -> None:
    files = {
        "birds/wren/1.png": PNG,
        "metadata.csv": "file,license\nbirds/wren/1.png,CC BY 4.0\n",
        "birds/wren/1.json": '{"author": "Ada", "license": "MIT", "boxes": {"wren": [0, 0, 1, 1]}}',
    }
    library = Library.open(write(tmp_path, files))
    item = library.items["birds/wren/1.png"]
    assert (item.caption, item.license, item.author) == ("wren", "CC-BY-4.0", "Ada")
    assert item.boxes == {"wren": (0, 0, 1, 1)}
    assert library.sources == (
        Source("csv", credits=1),
        Source("sidecars", credits=1, boxes=1),
        Source("class_folders", captions=1),
    )


@pytest.mark.parametrize(
    ("path", "caption"),
    [
        ("birds/barn owl/001.png", "barn owl"),
        ("birds/barn_owl/images/001.png", "barn owl"),
        ("DCIM/100CANON/IMG_0001.png", ""),
        ("train/2024-05/DSC01234.png", ""),
        ("photos/n01440764/x.png", ""),
        ("photos/barn-owl_02.png", "barn owl"),
        ("Zaunkönig im Schnee (3).png", "Zaunkönig im Schnee"),
        ("雪の鳥.png", "雪の鳥"),
    ],
)
def test_folders_and_names_are_captions_unless_they_are_generic(
    tmp_path: Path, path: str, caption: str
) -> None:
    assert captions(Library.open(write(tmp_path, {path: PNG}))) == {path: caption}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "IMG_1234",
            "DSC01234",
            "DSCF0001",
            "P1010101",
            "PXL_20230101_120000",
            "IMG-20230101-WA0001",
            "12345",
        ),
        *(
            "2024-05-01",
            "Screenshot 2024-05-01 at 10.11.12",
            "WhatsApp Image 2023-01-01 at 12.00.00",
            "image (3)",
        ),
        *(
            "3f2b8c1a-1b2c-4d5e-8f90-abcdefabcdef",
            "d41d8cd98f00b204e9800998ecf8427e",
            "final_v2",
            "Untitled-1",
        ),
        *("ComfyUI_00001_", "00012-3456789", "GOPR0123", "a", "ab", "_DSC1234", "scan0001", "photo", ""),
    ],
)
def test_names_given_by_cameras_programs_and_habit_say_nothing(name: str) -> None:
    assert subject_of(name) == ""


BOXES = {f"box {n}": [0, 0, 1, 1] for n in range(20_000)}
FIELDS: list[tuple[str, str, str]] = [  # field, its JSON, words of the problem
    ("author", "1987", "1987"),
    ("author", '["Ada", "Bo"]', "a list"),
    ("source", '{"url": "x"}', "not a string"),
    ("author", '"\\ud800"', "not in Unicode"),
    ("author", json.dumps("x" * 1001), "1,001"),
    ("boxes", '{"a": [0, 0, 1, ' + "9" * 400 + "]}", "999"),
    ("boxes", json.dumps(BOXES), "20,000"),
    ("boxes", '{"\\ud800": [0, 0, 1, 1]}', "not in Unicode"),
]


@pytest.mark.parametrize(("field", "value", "words"), FIELDS, ids=lambda value: value[:20])
def test_an_odd_field_is_a_problem_of_its_own(tmp_path: Path, field: str, value: str, words: str) -> None:
    line = f'{{"file_name": "a.png", "text": "{WREN}", "license": "CC0", "{field}": {value}}}'
    start = time.process_time()
    library = Library.open(write(tmp_path, {"a.png": PNG, "metadata.jsonl": f"\n{line}\n"}))
    (problem,) = library.problems
    assert (problem.file, problem.line, problem.field) == ("metadata.jsonl", 2, field)
    assert words in problem.text and len(problem.text) < 300
    item = library.items["a.png"]
    assert (item.caption, item.license) == (WREN, "CC0-1.0")
    json.dumps(item.hit(1.0).model_dump()).encode()
    assert time.process_time() - start < 20  # seconds of the processor


def test_a_list_of_authors_is_credited(tmp_path: Path) -> None:
    line = lines({"file_name": "a.png", "author": ["Ada", "Bo"]})
    assert (
        Library.open(write(tmp_path, {"a.png": PNG, "metadata.jsonl": line})).items["a.png"].author
        == "Ada; Bo"
    )


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"file_name": "a.png", "text": "x" * 10_000_000}),
        '{"file_name": "a.png", "text": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"file_name": "\\ud800.png", "text": "a wren"}',
        '{"text": "a wren"}',
        '{"file_name": 7}',
    ],
    ids=lambda line: line[:25],
)
@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.json"])
def test_an_unusable_line_is_told_and_the_others_count(tmp_path: Path, line: str, name: str) -> None:
    content = (
        lines({"file_name": "b.png", "text": FINCH}) + f"\n{line}\n" + lines({"file": "c.png", "text": WREN})
    )
    start = time.process_time()
    library = Library.open(write(tmp_path, {"a.png": PNG, "b.png": PNG, "c.png": PNG, name: content}))
    assert captions(library) == {"a.png": "", "b.png": FINCH, "c.png": WREN}
    assert [(problem.file, problem.line) for problem in library.problems] == [(name, 2)]
    assert len(problems(library)[0]) < 400
    assert time.process_time() - start < 20  # seconds of the processor


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("beschreibung,wer\nx,y\n", "no column for a file name among beschreibung, wer; accepted: file_name"),
        ("file,beschreibung\na.png,y\n", "no column for a caption"),
        ("file,text,author\na.png,a,b,c,d\n", "5 cells in 3 columns"),
        ('file,text\na.png,"' + "x" * 200_000 + '"\n', "field larger than field limit"),
        ("file,text\nabsent.png,x\n", "no image `absent.png`"),
    ],
    ids=["no file", "no caption", "cells", "long", "absent"],
)
def test_what_is_not_understood_in_a_table_is_told(tmp_path: Path, content: str, words: str) -> None:
    library = Library.open(write(tmp_path, {"a.png": PNG, "metadata.csv": content}))
    (problem,) = library.problems
    assert words in problem.text and problem.line in (1, 2)


def test_a_comma_in_an_unquoted_caption_belongs_to_it(tmp_path: Path) -> None:
    files = {"a.png": PNG, "metadata.csv": "file,text\na.png,a wren, in the snow\n"}
    assert captions(Library.open(write(tmp_path, files))) == {"a.png": "a wren, in the snow"}


def test_a_parquet_table_is_read(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "image": [{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "absent.png"}],
            "text": [WREN, FINCH],
            "license": ["cc-by-4.0", None],
            "embedding": [[0.5], [0.5]],
        }
    )
    write(tmp_path, {"a.png": PNG, "birds/metadata.parquet": b"PAR1 damaged"})
    parquet.write_table(table, tmp_path / "metadata.parquet")
    library = Library.open(tmp_path)
    item = library.items["a.png"]
    assert (item.caption, item.license, item.captioned_by) == (WREN, "CC-BY-4.0", "parquet")
    assert problems(library) == [
        "birds/metadata.parquet, line 1: not a table that can be read.",
        "metadata.parquet, line 2: no image `absent.png`.",
    ]


def test_a_parquet_table_that_ends_its_parser_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "import os\n\n\ndef serve(descriptor):\n    os.abort()\n"
    write(tmp_path, {"library/a.png": PNG, "library/metadata.parquet": b"PAR1", "crashing.py": module})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("pleinair.tools.retrieval.readers.parquet.__name__", "crashing")
    library = Library.open(tmp_path / "library")
    assert problems(library) == ["metadata.parquet, line 1: not a table that can be read."]


def test_a_sidecar_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    library = Library.open(write(tmp_path, {"wren.png": PNG, "wren.txt": bytes(range(256))}))
    assert problems(library) == ["wren.txt: not a text."]


@pytest.mark.parametrize(
    ("rows", "text"), [(10_000_001, "x"), (140, "x" * 1_000_000)], ids=["rows", "characters"]
)
def test_a_parquet_table_that_grows_when_read_is_refused(tmp_path: Path, rows: int, text: str) -> None:
    import pyarrow
    from pyarrow import parquet

    write(tmp_path, {"a.png": PNG})
    table = pyarrow.table({name: pyarrow.repeat(text, rows) for name in ("file_name", "text")})
    parquet.write_table(table, tmp_path / "metadata.parquet", compression="zstd", use_dictionary=rows > 1000)
    assert (tmp_path / "metadata.parquet").stat().st_size < 2**20
    library = Library.open(tmp_path)
    assert problems(library) == [
        "metadata.parquet: over 10,000,000 rows, or 268,435,456 bytes in a row group."
    ]


def test_names_in_another_case_or_unicode_form_match_if_they_mean_one_image(tmp_path: Path) -> None:
    table = lines({"file": "müller.png", "text": WREN}, {"file": "x.PNG", "text": FINCH})
    library = Library.open(
        write(tmp_path, {DECOMPOSED: PNG, "X.png": PNG, "x.png": PNG, "metadata.jsonl": table})
    )
    assert library.items[DECOMPOSED].caption == WREN
    assert [problem.line for problem in library.problems] == [2] and "means several" in problems(library)[0]
    assert name_key("MÜLLER") == name_key(unicodedata.normalize("NFD", "müller"))


def test_a_table_below_counts_before_one_above(tmp_path: Path) -> None:
    above = lines({"file": "birds/a.png", "text": "above", "author": "Ada"})
    below = lines({"file": "a.png", "text": "below"})
    files = {"birds/a.png": PNG, "metadata.jsonl": above, "birds/metadata.jsonl": below}
    item = Library.open(write(tmp_path, files)).items["birds/a.png"]
    assert (item.caption, item.author) == ("below", "Ada")


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("CC BY 4.0", "CC-BY-4.0"),
        ("cc-by-4.0", "CC-BY-4.0"),
        ("CC-BY-SA-NC 4.0", "CC-BY-NC-SA-4.0"),
        ("https://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
        ("http://creativecommons.org/licenses/by-sa/3.0/de/deed.en", "CC-BY-SA-3.0-DE"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International License", "CC-BY-SA-4.0"),
        ("Attribution-NonCommercial-NoDerivs 2.0 Generic", "CC-BY-NC-ND-2.0"),
        ("Public domain", "CC-PDM-1.0"),
        ("CC0", "CC0-1.0"),
        ("MIT License", "MIT"),
        ("Apache License 2.0", "Apache-2.0"),
        ("https://opensource.org/license/mit/", "MIT"),
        ("mit or apache-2.0", "MIT OR Apache-2.0"),
        ("CC BY", "CC BY"),
        ("cc-by-sa-3.0-fr", "cc-by-sa-3.0-fr"),
        (" All rights reserved ", "All rights reserved"),
        ("unknown", "unknown"),
        ("(" * 100_000, "(" * 100_000),
    ],
    ids=lambda text: text[:30],
)
def test_licenses_become_spdx_identifiers(text: str, identifier: str) -> None:
    assert spdx(text) == identifier
    assert spdx(identifier) == identifier


SYSTEM = (
    *(
        "#recycle/a.png",
        "$RECYCLE.BIN/a.png",
        "@eaDir/a.png",
        ".thumbnails/a.png",
        "Thumbs/a.png",
        "Thumbs.db",
    ),
    *(
        "lost+found/a.png",
        ".picasaoriginals/a.png",
        ".Trash-1000/a.png",
        ".git/a.png",
        "__MACOSX/a.png",
        "._a.png",
    ),
    *(
        ".DS_Store",
        "desktop.ini",
        ".stversions/a.png",
        ".dtrash/a.png",
        "Previews.lrdata/a.png",
        ".AppleDouble/a",
    ),
)


def test_system_and_hidden_items_are_left_out_and_told(tmp_path: Path) -> None:
    library = Library.open(write(tmp_path, {"2020/a.png": PNG} | {f"2020/{name}": PNG for name in SYSTEM}))
    assert list(library.items) == ["2020/a.png"]
    assert library.left_out == tuple(sorted(f"2020/{name.partition('/')[0]}" for name in SYSTEM))
    assert (library.problems, library.others) == ((), {})


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("name", ["image", "image.jpg_large", "image.img", "image.001"])
def test_an_image_with_an_odd_ending_or_none_is_found_by_its_first_bytes(
    tmp_path: Path, kind: str, name: str
) -> None:
    films = {
        "b.mp4": encoded("PNG"),
        "c.cr2": encoded("TIFF"),
        "d": b"MZ",
        "e.dat": b"BM and more text, 32 bytes or so",
    }
    library = Library.open(write(tmp_path, {name: encoded(kind), **films}))
    assert list(library.items) == [name]
    assert sorted(library.others) == [".cr2", ".dat", ".mp4", "d"]


def test_only_files_with_unusual_endings_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a.heic": b"", "b.jpe": b"", "c.txt": b"", "d.nef": b"", "e": PNG})
    opened: list[str] = []
    original = Path.open

    def record(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(self.name)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", record)
    assert list(Library.open(tmp_path, readers=["file_names"]).items) == ["a.heic", "b.jpe", "e"]
    assert opened == ["e"]


def test_a_folder_or_file_that_links_lead_to_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "outside", {"secret.png": PNG})
    root = write(tmp_path / "library", {"2020/a.png": PNG, ".annex/x/b.png": PNG, "#recycle/d.png": PNG})
    (root / "album").symlink_to(root / "2020")
    (root / "a again.png").symlink_to(root / "2020" / "a.png")
    (root / "b.png").symlink_to(root / ".annex" / "x" / "b.png")
    (root / "loop").symlink_to(root)
    (root / "2020" / "up").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "trash").symlink_to(root / "#recycle")
    (root / "out").symlink_to(tmp_path / "outside")
    library = Library.open(root)
    assert list(library.items) == ["2020/a.png", "b.png"]
    assert problems(library) == [
        "out: a link out of the library; left out.",
        "self: a link to what does not exist; left out.",
    ]


def test_a_library_has_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "library", {"a/b.png": PNG})
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(root)
    paths: list[str | Path] = [
        root,
        tmp_path / "link",
        f"{root}/",
        f"{root}/a/..",
        ".",
        root / "a" / ".." / ".",
    ]
    assert {addresses_of(path) for path in paths} == {(str(root),)}
    assert addresses_of([root / "a", tmp_path / "link", root]) == (str(root),)


def test_several_folders_are_one_library(tmp_path: Path) -> None:
    one = write(
        tmp_path / "one" / "photos", {"a.png": PNG, "metadata.jsonl": lines({"file": "a.png", "text": WREN})}
    )
    two = write(tmp_path / "two" / "photos", {"a.png": PNG, "metadata.jsonl": "{}"})
    three = write(tmp_path / "birds", {"a.png": PNG})
    library = Library.open([one, three])
    assert captions(library) == {"birds/a.png": "", "photos/a.png": WREN}
    assert library.path("birds/a.png") == three / "a.png"
    library = Library.open([one, two, two / ".", tmp_path / "two" / "photos"])
    assert captions(library) == {"one/photos/a.png": WREN, "two/photos/a.png": ""}
    assert problems(library)[0].startswith("two/photos/metadata.jsonl, line 1: no file name; ")
    assert library.picture("two/photos/a.png").size == (4, 4)
    assert library.title == f"{one} and {two}"
    with pytest.raises(BadInput, match="No folder .*nowhere"):
        Library.open([one, tmp_path / "nowhere"])
    assert has_images([one, two]) and not has_images(write(tmp_path / "empty", {"notes.txt": ""}))


def test_a_link_from_one_folder_into_another_is_inside_the_library(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", {"a.png": PNG}), write(tmp_path / "two", {"b.png": PNG})
    (one / "album").symlink_to(two)
    library = Library.open([one, two])
    assert (list(library.items), library.problems) == (["one/a.png", "two/b.png"], ())


def test_the_settings_may_choose_readers_and_their_order(tmp_path: Path) -> None:
    root = write(tmp_path, {"birds/wren.png": PNG, "birds/wren.txt": "beside"})
    assert captions(Library.open(root, readers=["file_names", "sidecars"])) == {"birds/wren.png": "wren"}
    with pytest.raises(BadInput, match="No reader is called `sidecar`.*Did you mean `sidecars`"):
        Library.open(root, readers=["sidecar"])


class Astray:
    rank = 0

    def read(self, folder: Folder) -> list[Description]:
        return [Description("elsewhere.png", "x")]


class Failing:
    rank = 0

    def read(self, folder: Folder) -> list[Description]:
        raise KeyError("oops")


@pytest.mark.parametrize(
    ("reader", "words"), [(Astray, "no image 'elsewhere.png'"), (Failing, "KeyError: 'oops'")]
)
def test_a_reader_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: type, words: str
) -> None:
    monkeypatch.setattr("pleinair.tools.registry.resolve", lambda kind, name: reader)
    with pytest.raises(BrokenPlugin, match=f"The reader `odd` failed: .*{words}"):
        Library.open(write(tmp_path, {"a.png": PNG}), readers=["odd"])


def test_problems_are_capped_and_counted(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"a.png": PNG, "metadata.jsonl": "{}\n" * 5000}
    library = Library.open(write(tmp_path, files))
    assert (len(library.problems), library.problem_count) == (1000, 5000)
    assert library.sources == (Source("jsonl", problems=5000),)
