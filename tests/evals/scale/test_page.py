"""Plots and tables of figures, and the arithmetic to 10⁸ images; nothing is timed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from defusedxml.ElementTree import parse
from support.source_tree import ROOT

from pleinair.evals.__main__ import main
from pleinair.evals.scale.arithmetic import (
    ANONYMOUS,
    EMBEDDING,
    FIRST_SEARCH,
    MANY,
    QUERY_BY_CODES,
    QUERY_IN_BATCH,
    amount,
    each_more,
    project,
)
from pleinair.evals.scale.page import EMPTY, MARKS, TABLES, fill
from pleinair.evals.scale.plots import PLOTS
from pleinair.tools.retrieval.coded_search import code_bytes
from pleinair.tools.types import BadInput


def library_row(images: int) -> dict[str, Any]:
    """Return figures with a fixed cost and one for each image."""
    return {
        "images": images,
        "open_ms": 5.0,
        "open_mb": 0.5,
        "first_search_ms": 200.0,
        "search_mb": 10 + images / 500,
        "search_anonymous_mb": 5 + images / 2**20,
        "read_ms": images / 300,
        "read_mb": images / 500,
        "write_s": 1 + images / 10_000,
        "write_peak_mb": 200 + images / 100,
        "bytes": {
            "exact vectors": 2048 * images,
            "codes": 45 if images < 100_000 else 64 * images + 7000,
            "catalogue": 5000 + 200 * images,
            "words of captions": 80 * images,
        },
    }


def search_row(vectors: int) -> dict[str, Any]:
    return {
        "vectors": vectors,
        "flat_1_ms": vectors / 10_000,
        "ours_1_ms": 0.1 + vectors / 400_000,
        "ratio_1": 40.0,
        "flat_32_ms": vectors / 300,
        "ours_32_ms": vectors / 20_000,
        "ratio_32": 66.7,
        "recall": 1.0,
        "recall_own": 0.999,
    }


def step_row(steps: int, side: int) -> dict[str, Any]:
    ours, plain = {"bytes": 3000.0, "seconds": 0.002}, {"bytes": 380.0 * steps, "seconds": 0.004}
    return {"steps": steps, "side": side, "ours": ours, "plain": plain}


def run_figures(reference: str) -> dict[str, Any]:
    phases = {"before the graph": 0.05, "draft": 0.4, "(denoising steps)": 0.5}
    figure = {"reference": reference, "n": 2, "ratio": {"best": 1.8, "median": 2.0}}
    return figure | {"seconds": [1.0, 0.9], "reference_seconds": [0.5, 0.5], "phases": phases}


SIZES = 1_000, 10_000, 100_000, 1_000_000
FIGURES: dict[str, Any] = {
    "library": {"seed": 0, "repeat": 3, "dim": 512, "sizes": [library_row(size) for size in SIZES]},
    "search": {"seed": 0, "repeats": 3, "sizes": [search_row(size) for size in SIZES]},
    **{
        f"embedding-{images}": {
            "images": images,
            "turns": 2,
            "seconds": {
                "open_clip, float32": [images / 20, images / 15],
                "build_index": [images / 100, images / 90],
                "no isolation": [images / 110, images / 100],
            },
        }
        for images in (8, 128)
    },
    "steps": {
        "steps": [step_row(steps, side) for side in (64, 1024) for steps in (1, 10, 100)],
        "memory": {
            name: [
                {"steps": steps, "resident_mb": each * steps, "anonymous_mb": each * (steps - 10)}
                for steps in (1, 10, 100)  # none at 10, less than none at 1
            ]
            for name, each in (("ours", 0.01), ("plain", 0.04))
        },
        "turns": {
            "bytes": [100_000.0] * 20,
            "seconds": [0.3] * 20,
            "steps": [11.0] * 20,
            "thread_bytes": [9],
        },
    },
    "startup": {
        "command": "",
        "cold": run_figures("the imports"),
        "warm": run_figures("the denoising steps"),
    },
    "machine": {"date": "2026-01-01", "processor": "x", "cores": 2, "load": 0.5, "versions": {"python": "3"}},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page that a report of the figures has filled."""
    folder = tmp_path_factory.mktemp("figures")
    for name, figure in FIGURES.items():
        (folder / f"{name}.json").write_text(json.dumps(figure), encoding="utf-8")
    page = folder / "evals" / "SCALE.md"
    page.parent.mkdir()
    page.write_text(f"before\n{EMPTY}after\n", encoding="utf-8")
    assert main(["scale", "report", str(folder), "--page", str(page)]) == 0
    return page


def test_a_report_has_every_plot_and_table(page: Path) -> None:
    assert {path.stem for path in (page.parent / "plots").iterdir()} == set(PLOTS)
    for path in (page.parent / "plots").iterdir():
        assert parse(path).getroot().tag.endswith("svg")
        assert path.stat().st_size < 60_000
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "Not measured." not in text
    assert "| a query by codes, one core | 100 ms | 2.6 ns | 38,000,000 |" in text
    assert "| a query, one core | 1,000,000 vectors; R@10 1.0000 | 2.60 ms |" in text
    merged = json.loads((page.parent / "data" / "scale.json").read_text(encoding="utf-8"))
    assert merged["search"] == FIGURES["search"]


def test_the_same_figures_give_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text(json.dumps(FIGURES["search"]), encoding="utf-8")
    written = []
    for _ in range(2):  # the second time beside the merged figures of the first
        assert main(["scale", "report", str(tmp_path)]) == 0
        files = [path for path in tmp_path.rglob("*.*") if path.is_file()]
        written.append({path.name: path.read_bytes() for path in files})
    assert set(written[0]) == {"search.json", "scale.json", "SCALE.md", "search.svg"}
    assert written[0] == written[1]


def test_what_was_not_measured_is_no_figure() -> None:
    text = fill(EMPTY, {"search": FIGURES["search"]})
    assert text.count("Not measured.") == len(TABLES) - 4  # ratios, search, arithmetic, limits


@pytest.mark.parametrize("name", TABLES)
def test_a_page_without_a_mark_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"<!-- {name} -->"):
        fill(EMPTY.replace(MARKS[0].format(name), ""), FIGURES)


def test_a_folder_without_figures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "report", str(tmp_path)]) == 1
    assert "has no figures" in capsys.readouterr().err


def test_an_image_more_costs_the_difference_of_the_largest_sizes() -> None:
    rows = [{"images": 10, "x": 999}, {"images": 100, "x": 50}, {"images": 300, "x": 450}]
    assert each_more(rows, "x") == 2
    assert each_more(rows[:1], "x") == 99.9


def test_the_arithmetic_multiplies_what_was_measured() -> None:
    costs = {each.subject: each for each in project(FIGURES)}
    assert costs["disk: catalogue"].each == 200
    assert costs["disk: catalogue"].total == 200 * MANY
    assert costs["disk: codes"].each == code_bytes(512) == 52
    assert costs[FIRST_SEARCH].total == 0  # it takes as long at any size
    assert costs["disk: the index, all of these"].each == 2048 + 52 + 200 + 80
    assert costs["GPU memory: exact vectors in half precision"].total == 1024 * MANY
    assert costs[ANONYMOUS].each == pytest.approx(1)
    assert costs[QUERY_BY_CODES].total == pytest.approx(100 * 2.6 / 1000)
    assert costs[QUERY_IN_BATCH].total == pytest.approx(MANY / 20_000 / 32 / 1000)
    assert costs[EMBEDDING].total == pytest.approx(MANY / 100)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2048, "B", "2.05 kB"),
        (6.4e9, "B", "6.4 GB"),
        (204.8e9, "B", "205 GB"),
        (1.5e15, "B", "1,500 TB"),
        (0.0, "B", "0 B"),
        (0.0000021, "s", "2.1 µs"),
        (0.25, "s", "250 ms"),
        (90, "s", "1.5 min"),
        (1e6, "s", "11.6 days"),
    ],
)
def test_amounts_have_a_unit_that_suits_them(value: float, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_the_page_of_the_project_has_the_figures_beside_it() -> None:
    page = ROOT / "evals" / "SCALE.md"
    figures = json.loads((page.parent / "data" / "scale.json").read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8")
    assert fill(text, figures) == text
    assert f"codes of {code_bytes(figures['library']['dim'])} bytes are scanned" in text
    drawn = {name for name, (needed, _, _) in PLOTS.items() if any(key.startswith(needed) for key in figures)}
    assert drawn == {path.stem for path in (page.parent / "plots").glob("*.svg")}
