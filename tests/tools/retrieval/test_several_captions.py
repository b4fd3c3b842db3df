"""Several captions of an image: from every kind of table, one a line, each matched by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.data_set_folders import noisy

from pleinair.tools.retrieval.lexical import Lexical, score_captions
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.readers.records import MAX_CAPTION, MAX_TAGS
from pleinair.tools.types import Hit

WREN, BARK = "a wren on a branch", "bark of an old oak"
RECORD = {"file_name": "a.png", "caption": [WREN, BARK]}
COCO = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "annotations": [{"image_id": 1, "caption": WREN}, {"image_id": 1, "caption": BARK}],
}
KARPATHY = {"images": [{"filename": "a.png", "split": "val", "sentences": [{"raw": WREN}, {"raw": BARK}]}]}
TABLES = {
    "a list in metadata.jsonl": ("metadata.jsonl", json.dumps(RECORD)),
    "a list under `captions`": ("metadata.jsonl", json.dumps({"image": "a.png", "captions": [WREN, BARK]})),
    "two lines": (
        "metadata.jsonl",
        "\n".join(json.dumps({"file_name": "a.png", "text": text}) for text in (WREN, BARK, WREN)),
    ),
    "two rows": ("metadata.csv", f"file_name,text\na.png,{WREN}\na.png,{BARK}\n"),
    "COCO's captions": ("annotations/captions_val2017.json", json.dumps(COCO)),
    "Karpathy's list": ("dataset_coco.json", json.dumps(KARPATHY)),
    "Flickr's tokens": ("results_20130124.token", f"a.png#0\t{WREN}\na.png#1\t{BARK}\n"),
}


def library_of(folder: Path, files: Mapping[str, str]) -> Library:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    noisy("wren", 1).save(folder / "a.png")
    return Library.open(folder)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_gives_all_captions_as_lines(tmp_path: Path, table: str) -> None:
    name, text = TABLES[table]
    library = library_of(tmp_path, {name: text})
    assert library.items["a.png"].caption == f"{WREN}\n{BARK}"
    assert library.items["a.png"].hit().captions == (WREN, BARK)
    assert library.problems == ()


def test_a_list_of_tags_stays_one_caption(tmp_path: Path) -> None:
    line = json.dumps({"file_name": "a.png", "tags": ["wren", "oak"]})
    assert library_of(tmp_path, {"metadata.jsonl": line}).items["a.png"].caption == "wren; oak"


@pytest.mark.parametrize(
    ("fields", "tags"),
    [
        ({"tags": ["wren, the", "oak", "oak"]}, ("wren, the", "oak")),
        ({"text": "a wren", "keywords": "wren, oak;pond"}, ("wren", "oak", "pond")),
        ({"tag_string": "wren old_oak"}, ("wren", "old_oak")),
        ({"tags": '["wren", "oak"]'}, ("wren", "oak")),
        ({"tags": 3, "keywords": "wren"}, ("wren",)),
        ({"text": "a wren"}, ()),
        ({"tags": [str(number) for number in range(900)]}, tuple(map(str, range(MAX_TAGS)))),
    ],
)
def test_tags_are_read_beside_the_caption(
    tmp_path: Path, fields: dict[str, object], tags: tuple[str, ...]
) -> None:
    library = library_of(tmp_path, {"metadata.jsonl": json.dumps({"file_name": "a.png", **fields})})
    assert library.items["a.png"].tags == tags
    assert library.sources[0].tags == bool(tags)


def test_a_text_with_line_breaks_is_one_caption(tmp_path: Path) -> None:
    line = json.dumps({"file_name": "a.png", "text": "a wren\non a branch"})
    assert library_of(tmp_path, {"metadata.jsonl": line}).items["a.png"].caption == WREN


def test_captions_in_rows_end_before_the_limit_and_never_within_one(tmp_path: Path) -> None:
    texts = [f"{number:03d} {'wren ' * 20}".strip() for number in range(200)]
    rows = "".join(f"a.png,{text}\n" for text in texts)
    caption = library_of(tmp_path, {"metadata.csv": f"file_name,text\n{rows}"}).items["a.png"].caption
    lines = caption.split("\n")
    assert lines == texts[: len(lines)]
    assert MAX_CAPTION - 110 < len(caption) <= MAX_CAPTION


class _Source:
    def __init__(self, *captions: str) -> None:
        self._hits = [Hit(id=f"{n}.png", score=0, caption=text) for n, text in enumerate(captions)]

    def entries(self) -> list[Hit]:
        return self._hits


def lexical(*captions: str) -> Lexical:
    return Lexical(_Source(*captions))  # type: ignore[arg-type]  # it only lists its entries


def test_an_image_counts_by_its_best_caption_alone() -> None:
    query, wrens = "a red wren", f"{WREN}\na red door"
    one_by_one = score_captions([Hit(id="a", score=0, caption=wrens), Hit(id="b", score=0)], query)
    lines = [Hit(id=line, score=0, caption=line) for line in (*wrens.split("\n"), "")]
    assert one_by_one == [max(score_captions(lines, query)), 0.0]


def test_words_of_two_captions_match_nothing_together() -> None:
    filler = [f"thing{number} on a table" for number in range(9)]
    query = "violet saddle teapot checkered"
    split = lexical("a violet teapot\na checkered saddle", *filler).search(query, 1)
    whole = lexical("a violet checkered teapot saddle", *filler).search(query, 1)
    assert [hit.id for hit in (*split, *whole)] == ["0.png", "0.png"]
    assert whole[0].score > split[0].score
    apart = lexical("a violet dot\na checkered saddle\na plain teapot", *filler)
    assert apart.search("violet saddle teapot", 1)[0].matched_by == ""
    assert lexical("a violet saddle teapot", *filler).search("violet saddle teapot", 1)[0].matched_by


def test_one_caption_more_changes_no_score_of_the_others_order() -> None:
    hits = lexical("a wren", "a finch\na wren on a branch in the snow", "an oak").search("wren", 3)
    assert [hit.id for hit in hits] == ["0.png", "1.png"]
