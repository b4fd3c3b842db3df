"""Rows of a batch: what spreadsheets and programs write is read, and every fault is named with its line."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pleinair.app.batch.rows import Row, read_rows
from pleinair.app.batch.source import MOST_FAULTS, BadRows, Source, open_source
from pleinair.tools.types import BadInput


def read(text: str | bytes, kind: str, **defaults: Any) -> list[Row]:
    data = text.encode() if isinstance(text, str) else text
    return read_rows(Source("prompts", data, kind, Path("/prompts")), defaults, {})


def faults(text: str, kind: str) -> list[tuple[int, str]]:
    with pytest.raises(BadRows) as caught:
        read(text, kind)
    return [(fault.line, fault.text) for fault in caught.value.faults]


def test_a_text_file_has_a_prompt_a_line() -> None:
    rows = read("# birds\n\n  a wren \r\n\ta #1 wren\n", "txt")
    assert [(row.line, row.prompt) for row in rows] == [(3, "a wren"), (4, "a #1 wren")]


def test_an_object_has_a_prompt_and_options() -> None:
    fields = {"prompt": "a wren", "seed": 7, "guidance_scale": 2, "id": 12, "retrieval.k": 4, "width": None}
    (row,) = read(json.dumps(fields), "json", graph="direct")
    assert row.options == {"seed": 7, "guidance_scale": 2, "graph": "direct"}
    assert (row.id, row.overrides) == ("12", {"retrieval.k": 4})


TABLE = "Prompt,Negative prompt,seed,reference_strength,strip_metadata\n"


@pytest.mark.parametrize(
    "text",
    [
        TABLE + '"a wren\nat dawn",7,3,0.5,TRUE\n',
        "\ufeff" + TABLE.replace("\n", "\r\n") + '"a wren\nat dawn",7,3,0.5,true\r\n,,,,\r\n\r\n',
        TABLE.replace(",", ";") + '"a wren\nat dawn";7;3;0,5;TRUE\n',
        TABLE.replace(",", "\t") + '"a wren\nat dawn"\t7\t3\t0.5\t1\n',
    ],
    ids=["commas", "a byte order mark and CRLF", "semicolons", "tabs"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_of_a_spreadsheet_is_read(text: str, encoding: str) -> None:
    text = text.removeprefix("\ufeff") if encoding == "utf-16" else text
    (row,) = read(text.encode(encoding), "csv")
    assert row.prompt == "a wren\nat dawn"
    assert row.options == {
        "negative_prompt": "7",
        "seed": 3,
        "reference_strength": 0.5,
        "strip_metadata": True,
    }
    assert row.line == 2


def test_lines_are_counted_over_cells_of_several_lines() -> None:
    text = 'sep=;\nprompt;seed\n"a\nb";1\n\nc;x\n'
    assert faults(text, "csv") == [(6, "seed = 'x': must be a whole number")]


def test_every_fault_of_every_line_is_named() -> None:
    rows: list[Any] = [
        {"prompt": "a", "sede": 1},
        {"seed": 1.5, "prompt": "b"},
        {"prompt": 3, "width": "64"},
        [],
        {"prompt": "c", "id": "x"},
        {"prompt": "d", "name": "x"},
        {"prompt": "e", "name": "y", "id": "z"},
        {"seed": True},
    ]
    text = "\n".join(map(json.dumps, rows)) + '\n{"prompt": "f"\n{"prompt": "g", "prompt": "h"}\n'
    found = faults(text, "json")
    assert [line for line, _ in found] == [1, 2, 3, 3, 4, 6, 8, 8, 9, 10]
    texts = [text for _, text in found]
    assert "Did you mean `seed`?" in texts[0]
    assert "must be a whole number" in texts[1]
    assert "line 5 has it too" in texts[5]
    assert texts[-1] == "not JSON: an object has a key twice"


def test_many_faults_are_counted_and_equal_ones_are_one() -> None:
    text = "prompt,sede\n" + "a,1\n" * 9 + "".join(f"a\ud7ff,,{number}\n" for number in range(2))
    with pytest.raises(BadRows) as caught:
        read(text, "csv")
    lines = list(caught.value.lines())
    assert lines[0].startswith("lines 2, 3, 4, 5, 6 and 4 more: 'sede': unknown column.")
    assert len(lines) == 2
    with pytest.raises(BadRows) as caught:
        read("prompt,seed\n" + "".join(f"a,x{number}\n" for number in range(30)), "csv")
    lines = list(caught.value.lines())
    assert len(lines) == MOST_FAULTS + 1 and lines[-1] == "and 10 other faults"


def test_equal_rows_have_numbers_and_moved_rows_keep_their_keys() -> None:
    before = read("a\nb\na\n", "txt")
    after = read("c\na\n\nb\na\n", "txt")
    assert [row.number for row in before] == [1, 1, 2]
    assert len({row.key for row in before}) == 3
    assert {row.key for row in before} < {row.key for row in after}


def test_input_images_are_files_beside_the_table() -> None:
    (row,) = read("prompt,input_images\na,x.png | /y.png\n", "csv")
    assert row.options["input_images"] == ["/prompts/x.png", "/y.png"]
    (row,) = read('{"prompt": "a", "input_images": "x.png"}', "json")
    assert row.options["input_images"] == ["/prompts/x.png"]


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ('"two wrens, ""old"" ones"\n"a" and "b"\n', ['two wrens, "old" ones', '"a" and "b"']),
        ("1. a wren\n2) a tit\n\n3. a finch\n", ["a wren", "a tit", "a finch"]),
        ("- a wren\n- a tit\n", ["a wren", "a tit"]),
        ("1. FC wins\na wren\n", ["1. FC wins", "a wren"]),
        ("2. a wren\n3. a tit\n", ["2. a wren", "3. a tit"]),
        ("- a wren\n", ["- a wren"]),
    ],
)
def test_quotes_around_a_line_and_the_marks_of_a_list_are_no_prompt(text: str, prompts: list[str]) -> None:
    assert [row.prompt for row in read(text, "txt")] == prompts


@pytest.mark.parametrize(
    "text",
    [
        '"a"\n{"prompt": "b", "seed": 2.0}\n',
        '"a",\n{"prompt": "b", "seed": 2},\n',
        '["a", {"prompt": "b",\n "seed": 2}]\n',
        '[\n  "a",\r\n  {"prompt": "b", "seed": 2},\n]',
    ],
    ids=["lines", "commas at their ends", "an array", "an array over lines"],
)
def test_json_is_read_as_lines_or_as_an_array(text: str) -> None:
    assert [(row.prompt, row.options) for row in read(text, "json")] == [("a", {}), ("b", {"seed": 2})]


def test_broken_json_is_named_by_line_and_character() -> None:
    text = '[{"prompt": "a"},\n{"prompt": "b",},\n7,\n{"prompt": "c"}'
    expected = [
        (2, "not JSON: Expecting property name enclosed in double quotes, at character 16 of the row"),
        (3, "7: must be an object or a string"),
        (4, "the array has no end; `]` is missing"),
    ]
    assert faults(text, "json") == expected


def test_usual_names_of_columns_are_read() -> None:
    (row,) = read("Caption,Negative,n,Steps,size,references\na,fog,2,9,512 x 256,x.png\n", "csv")
    assert row.prompt == "a"
    assert row.options == {
        "negative_prompt": "fog",
        "num_images": 2,
        "num_inference_steps": 9,
        "width": 512,
        "height": 256,
        "input_images": ["/prompts/x.png"],
    }
    assert [text.split(":")[0] for _, text in faults("text,caption\na,b\n", "csv")] == ["'caption'"]
    assert len(faults("prompt,model,size,seeed\na,x,big,1\n", "csv")) == 3


def test_columns_of_the_author_come_along_and_are_no_part_of_the_key() -> None:
    text = "Größe,Caption,,prompt,Nr.\nklein,mine,0,a,7\n"
    (row,) = read(text, "csv")
    assert row.columns == {"Größe": "klein", "Caption": "mine", "column 3": "0", "Nr.": "7"}
    (edited,) = read(text.replace("mine", "another"), "csv")
    assert edited.key == row.key
    (row,) = read('{"prompt": "a", "meta": {"x": [1]}}', "json")
    assert row.columns == {"meta": {"x": [1]}}


def test_what_stands_above_the_names_of_columns_is_passed_over() -> None:
    rows = read("# birds, of May\n\nprompt,seed\n#1 wren,3\n", "csv")
    assert [(row.line, row.prompt, row.options) for row in rows] == [(4, "#1 wren", {"seed": 3})]
    (row,) = read('#, prompt\n1, "a, b"\n', "csv")
    assert (row.prompt, row.columns) == ("a, b", {"#": "1"})


def test_a_table_without_names_of_columns_has_one_fault() -> None:
    ((line, text),) = faults("a wren\n" * 9, "csv")
    assert line == 1 and "must be the names of the columns, one of them `prompt`" in text


@pytest.mark.parametrize("text", ["", "# none\n", "\n\n"])
def test_a_file_without_a_prompt_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no prompt in it"):
        read(text, "txt")


def test_another_encoding_is_refused_with_its_line() -> None:
    with pytest.raises(BadInput, match="line 2: not in UTF-8"):
        read("a\nübel\n".encode("latin-1"), "txt")
    with pytest.raises(BadInput, match="line 1: not in UTF-8"):
        read("a wren\n".encode("utf-16-le"), "txt")


def test_files_are_known_by_their_names_and_standard_input_by_its_first_sign(tmp_path: Path) -> None:
    (tmp_path / "p.CSV").write_text("prompt\na\n", encoding="utf-8")
    assert open_source(str(tmp_path / "p.CSV"), bytes).kind == "csv"
    assert open_source("-", lambda: b'\n{"prompt": "a"}').kind == "json"
    assert open_source("-", lambda: b"a wren").kind == "txt"
    with pytest.raises(BadInput, match=r"must be a name that ends in \.txt, \.csv, \.tsv, \.jsonl"):
        open_source("prompts.xlsx", bytes)
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        open_source(str(tmp_path / "none.txt"), bytes)


def test_a_short_table_does_not_limit_the_fields_of_others() -> None:
    """The limit of the csv module is the process's."""
    limit = csv.field_size_limit()
    read("prompt\na finch\n", "csv")
    assert csv.field_size_limit() == limit
