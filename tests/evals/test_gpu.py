"""The GPU benchmark on tiny shapes, and the real shapes' sizes without their memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pleinair.evals import gpu
from pleinair.evals.__main__ import main

PAGE = Path(gpu.__file__).parent / "GPU.md"


@pytest.mark.parametrize(
    ("name", "billions"),
    [("SDXL", 2.57), ("FLUX.2-klein-4B", 3.88), ("FLUX.1-dev", 11.90)],
)
def test_the_shapes_are_of_the_published_sizes(name: str, billions: float) -> None:
    denoiser = gpu.empty_model(gpu.SHAPES[name]["real"]["denoiser"])
    count = sum(weights.numel() for weights in denoiser.parameters())
    assert count / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # the Euler scheduler's
def test_every_part_runs_on_tiny_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu", "--tiny", "--repeats", "1", "--out", str(tmp_path / "GPU.md")]) == 0
    assert capsys.readouterr().out == "6 parts ran on tiny shapes, untimed\n"
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_nothing_is_timed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "find_gpu", lambda: "")
    assert main(["gpu"]) == 1
    assert "No CUDA GPU is available" in capsys.readouterr().err


def test_each_number_of_references_is_a_row() -> None:
    rows = gpu.make_parts(True, 1)["FLUX.2-klein-4B"]()
    assert [row["references"] for row in rows] == [0, 4]
    assert all(row["s an image"] > 0 for row in rows)


def test_a_part_that_fails_is_reported_and_ends_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[dict[str, object]]:
        raise RuntimeError("CUDA error: out of luck\nand more")

    parts = {"bad": fail, "FLUX.1-dev": lambda: [{"references": 4, "s an image": 1.5}]}
    monkeypatch.setattr(gpu, "find_gpu", lambda: "A GPU")
    monkeypatch.setattr(gpu, "make_parts", lambda tiny, repeats: parts)
    page = tmp_path / "deep" / "GPU.md"
    assert main(["gpu", "--out", str(page)]) == 1
    assert "1 of 2 parts failed: bad" in capsys.readouterr().err
    text = page.read_text(encoding="utf-8")
    assert gpu.COMMAND in text and "A GPU; python" in text
    assert "| FLUX.1-dev | 4 | 1.500 |" in text
    assert text.rstrip().endswith("Failed: bad: RuntimeError: CUDA error: out of luck")


def test_an_index_and_its_copy_return_the_same() -> None:
    rows = gpu.compare_faiss(True, 1)
    shares = [(row["queries a call"], row["equal ids"], row["recall@10"]) for row in rows]
    assert shares == [(1, 1, 1), (32, 1, 1)]
    page = "\n".join(gpu.page_lines([{"part": "FAISS", **row} for row in rows], {}, "A GPU"))
    assert "| FAISS | 32 | 1.000 | 1.000 |" in page


def test_the_page_in_the_tree_names_the_command() -> None:
    assert gpu.COMMAND in PAGE.read_text(encoding="utf-8")
