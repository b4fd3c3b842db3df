"""What `pleinair index` prints: what cannot be used, in few lines, with counts that add up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from support.captioned_files import exif, iptc, jpeg, png
from support.data_set_folders import write_data_set
from support.quick_engines import speckled
from typer.testing import CliRunner

from pleinair.app.cli.main import app
from pleinair.app.index import bring_up_to_date
from pleinair.app.libraries import OnProgress
from pleinair.app.settings import load


def _lines(*arguments: object) -> list[str]:
    result = CliRunner().invoke(app, ["index", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def _fill(library: Path, rows: int) -> None:
    """Add a table with unusable rows, a sidecar that is not JSON, a damaged image and one that is cut off."""
    records = [{"file_name": f"missing{number}.png", "text": "x"} for number in range(rows)]
    (library / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)), "utf-8")
    (library / "0.json").write_text("{", "utf-8")
    (library / "damaged.png").write_bytes((library / "1.png").read_bytes()[:20])
    Image.effect_noise((256, 256), 64).save(library / "cut.jpg")
    whole = (library / "cut.jpg").read_bytes()
    (library / "cut.jpg").write_bytes(whole[: len(whole) * 9 // 10])


def test_a_table_of_unusable_rows_hides_no_other_problem(place: Path) -> None:
    library = place / "library"
    _fill(library, 200)
    lines = _lines(library)
    assert lines[0] == f"7 images of {library} are indexed under hashes; 1 cannot be used"
    problems = lines[lines.index("jsonl: 200 problems") + 1 :]
    first = "metadata.jsonl, line {}: no image `missing{}.png`."
    assert [line for line in problems if line.startswith("metadata.jsonl")] == [
        first.format(number + 1, number) for number in range(3)
    ]
    assert "0.json: not a JSON object." in problems
    assert any(line.startswith("damaged.png: ") for line in problems)
    assert any(line.startswith("cut.jpg: the file ends too soon") for line in problems)
    assert problems[-1] == "and 197 more problems; list all with --problems"


def test_every_problem_is_listed_on_request(place: Path) -> None:
    library = place / "library"
    _fill(library, 1100)
    lines = _lines(library, "--problems")
    assert sum(line.startswith("metadata.jsonl, line") for line in lines) == 1000
    assert lines[-1] == "and 101 more problems"  # those beyond the record are counted


def test_the_origin_of_captions_is_counted_and_an_unusable_row_has_file_and_line(place: Path) -> None:
    folder = place / "shelf"
    (folder / "red square").mkdir(parents=True)
    files = {
        "IMG_1.jpg": iptc({(2, 120): b"a wren", (2, 80): b"Ada"}),
        "IMG_2.jpg": jpeg(exif=exif({0x010E: "a finch"})),
        "IMG_3.png": png({"Description": "a tetra"}),
        "IMG_4.txt": b"a coupe",
        "metadata.csv": b"file_name,text\nIMG_5.png,a castle\nabsent.png,a tower\n,a ruin\n",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    for number, name in enumerate(["IMG_4", "IMG_5", "red square/IMG_7", "blue-thing"]):
        speckled(16, (40 * number, 9, 200)).save(folder / f"{name}.png")
    lines = _lines(folder, "--problems")
    for line in (
        "csv: 1 caption, 2 problems",
        "sidecars: 1 caption",
        "embedded: 3 captions, 1 image with credits",
        "class_folders: 1 caption",
        "file_names: 1 caption",
    ):
        assert line in lines, lines
    assert "metadata.csv, line 3: no image `absent.png`." in lines
    assert any(line.startswith("metadata.csv, line 4: ") for line in lines), lines


def test_progress_is_titled_and_no_line_comes_meanwhile(place: Path) -> None:
    titles, watching = [], False

    @contextmanager
    def watch(title: str) -> Iterator[OnProgress]:
        nonlocal watching
        titles.append(title)
        watching = True
        yield lambda done, total: None
        watching = False

    for _ in bring_up_to_date(load(), watch):
        assert not watching
    assert titles == ["Reading texts in images", "Indexing images"]


def test_doctor_takes_a_library(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.effect_noise((64, 64), 64).save(other / "a.png")
    result = CliRunner().invoke(app, ["doctor", "--library", str(other)])
    assert f"1 image in {other}, " in result.stdout


def test_a_published_data_set_is_named_with_the_command_that_reads_its_lists(place: Path) -> None:
    write_data_set("cub", place / "birds")
    lines = _lines(place / "birds")
    assert "class_folders: 9 captions" in lines
    assert any(
        line.startswith(f"{place / 'birds'} seems to be CUB-200-2011: `python -m pl") for line in lines
    )
    assert not any("seems to be" in line for line in _lines(place / "library"))


def test_a_stored_index_is_compared_with_its_checksums(place: Path) -> None:
    refused = CliRunner().invoke(app, ["index", "--verify"])
    assert refused.exit_code == 2 and "No index in" in refused.stderr
    _lines()
    (folder,) = (place / "home" / "cache" / "indexes").iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (line,) = _lines("--verify")
    assert "6 images" in line and str(folder) in line
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (vectors,) = folder.glob("vectors-*")
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"?")
    damaged = CliRunner().invoke(app, ["index", "--verify"])
    assert damaged.exit_code == 2 and vectors.name in damaged.stderr and "builds it anew" in damaged.stderr
    both = CliRunner().invoke(app, ["index", "--verify", "--caption"])
    assert both.exit_code == 2 and "--verify changes nothing" in both.stderr
    _lines()
    _lines("--verify")
