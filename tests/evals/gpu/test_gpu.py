"""The GPU benchmark's own code on tiny shapes, and the real shapes' sizes without their memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.gpu import run as gpu
from pleinair.evals.gpu import shapes as gpu_shapes
from pleinair.evals.gpu.measure import compare_faiss
from pleinair.evals.gpu.run import COMMAND, Part, make_parts, write_page

PAGE = Path(gpu.__file__).parents[1] / "GPU.md"


@pytest.mark.parametrize(
    ("name", "billions"),
    [("SDXL", 2.57), ("FLUX.2-klein-4B", 3.88), ("FLUX.1-dev", 11.90)],
)
def test_the_shapes_are_of_the_published_sizes(name: str, billions: float) -> None:
    denoiser = gpu_shapes.meta(gpu_shapes.SHAPES[name](False).denoiser)
    assert sum(weights.numel() for weights in denoiser.parameters()) / 1e9 == pytest.approx(
        billions, abs=0.01
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # the Euler scheduler's
def test_every_part_runs_on_tiny_shapes_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "find_gpu", lambda: "")
    page = tmp_path / "deep" / "GPU.md"
    assert main(["gpu", "--tiny", "--repeats", "1", "--out", str(page)]) == 0
    assert capsys.readouterr().out.splitlines() == [gpu.NO_GPU, str(page)]
    text = page.read_text(encoding="utf-8")
    assert "No GPU was at hand" in text
    assert COMMAND in text
    assert "6 of 6 parts" in text
    assert "Failed" not in text


def test_references_lengthen_the_table_and_times_are_there() -> None:
    (part,) = [p for p in make_parts(True, 1) if p.name == "FLUX.2-klein-4B" and not p.compiled]
    part.run()
    assert [row["references"] for row in part.rows] == [0, 4]
    assert all(row["seconds"] > 0 and row["peak"] is None for row in part.rows)
    page = write_page([part], "A GPU")
    assert "| FLUX.2-klein-4B | no | 4 |" in page
    assert "No GPU" not in page


def test_a_part_that_fails_is_told_and_ends_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[dict[str, object]]:
        raise RuntimeError("CUDA error: out of luck\nand more")

    parts = [Part("bad", fail), Part("good", lambda: [{"batch": 1, "equal": 1.0}])]
    monkeypatch.setattr(gpu, "find_gpu", lambda: "")
    monkeypatch.setattr(gpu, "make_parts", lambda tiny, repeats: parts)
    assert main(["gpu", "--out", str(tmp_path / "GPU.md")]) == 1
    assert "1 of 2 parts failed: bad" in capsys.readouterr().err
    assert parts[1].rows
    text = (tmp_path / "GPU.md").read_text(encoding="utf-8")
    assert "1 of 2 parts" in text
    assert text.rstrip().endswith("Failed: bad: RuntimeError: CUDA error: out of luck")


def test_an_index_and_its_copy_find_the_same() -> None:
    rows = compare_faiss(True, 1)
    assert [(row["batch"], row["equal"], row["recall"]) for row in rows] == [(1, 1, 1), (32, 1, 1)]
    assert "| 32 | 100.00% | 1.0000 |" in write_page([Part("FAISS", lambda: rows, rows=rows)], "A GPU")


def test_the_page_in_the_tree_names_the_command() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert COMMAND in text
    assert "Failed" not in text
