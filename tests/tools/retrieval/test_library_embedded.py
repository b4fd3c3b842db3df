"""Texts in the image files themselves, as cameras, photographers and generators write them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from support.captioned_files import exif, iptc, jpeg, png

from pleinair.tools.callbacks import Stop, StopCheck
from pleinair.tools.images.embedded import embedded_texts
from pleinair.tools.retrieval import walk
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library, Source
from pleinair.tools.retrieval.readers import embedded
from pleinair.tools.types import Cancelled

XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"
 xmpRights:WebStatement="https://creativecommons.org/licenses/by-sa/4.0/">{}</rdf:Description></rdf:RDF></x:xmpmeta>"""
ALTERNATIVES = """<dc:{0}><rdf:Alt><rdf:li xml:lang="de">Zaunkönig</rdf:li>
<rdf:li xml:lang="x-default">{1}</rdf:li></rdf:Alt></dc:{0}>"""
CREATOR = "<dc:creator><rdf:Seq><rdf:li>Ada</rdf:li><rdf:li>Bo</rdf:li></rdf:Seq></dc:creator>"
BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>' + XMP.format(
    "<dc:description xmlns:dc='http://purl.org/dc/elements/1.1/'>&b;</dc:description>"
)
LEAK = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + XMP.format("<dc:title>&a;</dc:title>")


PROMPT = (
    "a wren <lora:birds:0.8>on a branch\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7"
)
FILES: list[tuple[str, bytes, str]] = [
    ("1.jpg", jpeg(exif=exif({0x010E: "a wren"})), "a wren"),
    ("1.jpg", jpeg(exif=exif({0x010E: "Zaunkönig".encode()})), "Zaunkönig"),
    ("1.jpg", jpeg(exif=exif({0x9C9B: "Zaunkönig\0".encode("utf-16-le")})), "Zaunkönig"),
    ("1.jpg", jpeg(exif=exif({0x010E: "OLYMPUS DIGITAL CAMERA"})), ""),
    ("1.jpg", jpeg(exif=exif({0x010E: "   "}, b"ASCII\0\0\0a wren")), "a wren"),
    ("1.jpg", jpeg(exif=exif({}, b"UNICODE\0" + PROMPT.encode("utf-16-be"))), "a wren on a branch"),
    ("1.jpg", jpeg(exif=exif({}, b"UNICODE\0" + "a wren".encode("utf-16-le"))), "a wren"),
    ("1.jpg", iptc({(2, 120): b"a wren", (2, 5): b"title"}), "a wren"),
    ("1.jpg", iptc({(2, 5): "Zaunkönig".encode("latin-1")}), "Zaunkönig"),
    ("1.jpg", jpeg(xmp=XMP.format(ALTERNATIVES.format("description", "a wren")).encode()), "a wren"),
    ("1.jpg", jpeg(xmp=XMP.format(ALTERNATIVES.format("title", "a wren")).encode()), "a wren"),
    ("1.jpg", jpeg(xmp=BOMB.encode()), ""),
    ("1.jpg", jpeg(xmp=LEAK.encode()), ""),
    ("1.jpg", jpeg(xmp=b"<x:xmpmeta", exif=exif({0x010E: "a wren"})), "a wren"),
    ("1.png", png({"Description": "a wren"}), "a wren"),
    ("1.png", png({"Title": "a wren"}, kind="itxt"), "a wren"),
    ("1.png", png({"parameters": PROMPT}, kind="ztxt"), "a wren on a branch"),
    ("1.png", png({"parameters": PROMPT}, late=True), "a wren on a branch"),
    ("1.png", png({"Comment": "Created with GIMP"}), ""),
    ("1.png", png({"prompt": '{"3": {"class_type": "KSampler"}}'}), ""),
    ("1.png", png({"Title": "IMG_1234"}), ""),
    ("1.jpg", jpeg(exif=exif({0x010E: "x" * 60_000})), "x" * 10_000),
    ("1.jpg", b"\xff\xd8\xff\xe1\0\x10Exif\0\0 and then nothing", ""),
]


@pytest.mark.parametrize(("name", "data", "caption"), FILES, ids=range(len(FILES)))
def test_a_caption_is_read_from_the_file_itself(tmp_path: Path, name: str, data: bytes, caption: str) -> None:
    (tmp_path / name).write_bytes(data)
    item = Library.open(tmp_path).items[name]
    assert (item.caption, item.captioned_by) == (caption, "embedded" if caption else "")


CREDITS: list[tuple[bytes, tuple[str, str]]] = [
    (jpeg(exif=exif({0x013B: "Ada", 0x8298: "© 2020 Ada, CC BY 4.0"})), ("Ada", "CC-BY-4.0")),
    (
        jpeg(exif=exif({0x8298: "© 2020 Ada. All rights reserved.".encode()})),
        ("", "© 2020 Ada. All rights reserved."),
    ),
    (jpeg(exif=exif({0x8298: "© 2020 Ada".encode("latin-1")})), ("© 2020 Ada", "unknown")),
    (jpeg(xmp=XMP.format(CREATOR).encode()), ("Ada; Bo", "CC-BY-SA-4.0")),
    (iptc({(2, 80): b"Ada", (2, 116): b"public domain"}), ("Ada", "CC-PDM-1.0")),
    (png({"Author": "Ada", "License": "CC0"}), ("Ada", "CC0-1.0")),
]


@pytest.mark.parametrize(("data", "credit"), CREDITS, ids=range(len(CREDITS)))
def test_credit_is_read_from_the_file_itself(tmp_path: Path, data: bytes, credit: tuple[str, str]) -> None:
    (tmp_path / "1").write_bytes(data)
    item = Library.open(tmp_path).items["1"]
    assert (item.author, item.license) == credit


SUBJECT = "<dc:subject><rdf:Bag><rdf:li>wren</rdf:li><rdf:li>oak</rdf:li></rdf:Bag></dc:subject>"
TAGGED: list[tuple[bytes, tuple[str, ...]]] = [
    (jpeg(xmp=XMP.format(SUBJECT).encode()), ("wren", "oak")),
    (iptc({(2, 25): b"wren"}), ("wren",)),
    (jpeg(exif=exif({0x9C9E: "wren;oak\0".encode("utf-16-le")})), ("wren", "oak")),
    (jpeg(exif=exif({0x010E: "a wren"})), ()),
]


@pytest.mark.parametrize(("data", "tags"), TAGGED, ids=range(len(TAGGED)))
def test_tags_are_read_from_the_file_itself(tmp_path: Path, data: bytes, tags: tuple[str, ...]) -> None:
    (tmp_path / "1.jpg").write_bytes(data)
    assert Library.open(tmp_path).items["1.jpg"].tags == tags


def test_stronger_readers_win_field_by_field(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "1.jpg").write_bytes(jpeg(exif=exif({0x010E: "inside", 0x013B: "Ada"})))
    assert facts(Library.open(tmp_path).items["birds/1.jpg"]) == ("inside", "Ada")
    (tmp_path / "birds" / "1.txt").write_text("beside", encoding="utf-8")
    library = Library.open(tmp_path)
    assert facts(library.items["birds/1.jpg"]) == ("beside", "Ada")
    assert library.sources == (Source("sidecars", captions=1), Source("embedded", credits=1))


def facts(item: Item) -> tuple[str, str]:
    return item.caption, item.author


def test_files_are_read_again_only_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache, done = tmp_path / "library", tmp_path / "cache", list[tuple[int, int]]()
    root.mkdir()
    (root / "1.jpg").write_bytes(jpeg(exif=exif({0x010E: "first"})))
    (root / "2.jpg").write_bytes(jpeg())
    library = Library.open(root, cache=cache, on_progress=lambda *counts: done.append(counts))
    assert (library.items["1.jpg"].caption, done) == ("first", [(1, 2), (2, 2)])
    monkeypatch.setattr(embedded, "_decoder", lambda: pytest.fail("read again"))
    assert Library.open(root, cache=cache).items["1.jpg"].caption == "first"
    monkeypatch.undo()
    (root / "1.jpg").write_bytes(jpeg(exif=exif({0x010E: "second"})))
    assert Library.open(root, cache=cache).items["1.jpg"].caption == "second"
    for path in cache.iterdir():
        path.write_text('{"version": 1, "images": {"1.jpg": 3}}', encoding="utf-8")
    assert Library.open(root, cache=cache).items["1.jpg"].caption == "second"


def test_a_stop_during_the_reading_ends_it(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(exif=exif({0x010E: "a wren"})))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Library.open(tmp_path, on_progress=stop)


def test_a_stop_while_the_folders_are_listed_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "PAUSE", 2)
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    stop = Stop()
    Library.open(tmp_path, on_progress=StopCheck(stop.check))
    stop.set()
    with pytest.raises(Cancelled):
        Library.open(tmp_path, on_progress=StopCheck(stop.check))


def test_files_without_texts_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_decoder", lambda: pytest.fail("decoded"))
    (tmp_path / "1.jpg").write_bytes(jpeg())
    Image.new("RGB", (16, 16)).save(tmp_path / "2.png")
    assert [item.caption for item in Library.open(tmp_path).items.values()] == ["", ""]


def test_other_formats_hold_texts_too() -> None:
    for kind in ("WEBP", "TIFF", "AVIF"):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16)).save(buffer, kind, exif=exif({0x010E: "a wren"}))
        assert embedded_texts(Image.open(buffer))["caption"] == "a wren", kind
