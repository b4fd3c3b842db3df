"""Plots of a report, and what its page of images shows."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure as Canvas

from pleinair.app.settings import load
from pleinair.evals.reproduce.generate import Studio, Work
from pleinair.evals.reproduce.page import examples
from pleinair.evals.reproduce.plan import Arm, Line, Subject, Variant
from pleinair.evals.reproduce.published import Figure
from pleinair.evals.reproduce.report import _points
from pleinair.evals.reproduce.results import Cell

ROWS = ("encoder", "sparse")


def test_a_row_keeps_its_colour_and_place_where_another_has_no_figure() -> None:
    whole, part = Canvas().subplots(2, 1)
    cells = [Cell(row, "coco", "latency", 1.0, published=Figure(2.0)) for row in ROWS]
    _points(ROWS, whole, cells)
    _points(ROWS, part, cells[1:])
    points = [axes.get_lines()[-1] for axes in (whole, part)]
    assert points[0].get_color() == points[1].get_color()
    assert list(points[0].get_xdata()) == list(points[1].get_xdata())
    marks = [axes.collections[-1].get_edgecolor().tolist() for axes in (whole, part)]
    assert marks[0] == marks[1]
    assert part.get_legend_handles_labels()[1] == ["sparse"]


def test_the_page_shows_different_prompts_and_the_first_seed_of_each(tmp_path: Path) -> None:
    subjects = tuple(
        Subject(prompt, prompt, seed, ()) for prompt in ("a finch", "a wren") for seed in (7, 8, 9)
    )
    line = Line("base model", Variant("base", "direct"))
    work = Work(Arm("cub", "base"), line, load("pocket"), {}, "id", subjects)
    studio = Studio(tmp_path)
    for subject in subjects:
        studio.records.add(work.key(subject), picture=None, references=[], ending="failed")
    shown = [(example["prompt"], example["seed"]) for example in examples(studio, [work])]
    assert shown == [("a finch", 7), ("a wren", 7)]
