"""Offload levels that lack of memory led to: reported by the engine, stored in the run, shown in traces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import faulty_generator
from support import tiny_pipelines as tiny
from support.fake_engines import call, make_context
from typer.testing import CliRunner

from pleinair.app.api import draw, home, run_table
from pleinair.app.cli.main import app
from pleinair.app.engines import build_generator
from pleinair.app.settings import load
from pleinair.app.storyboard.export import export
from pleinair.graphs.direct import graph
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.worker.worker import Worker

LEVELS = ("whole", "vae_tiling")


def trace(run_id: str) -> str:
    return CliRunner().invoke(app, ["trace", "show", run_id]).stdout


def test_an_engine_that_ran_out_of_memory_reports_its_levels(tmp_path: Path) -> None:
    failures = iter([True])

    def run_out(done: int, total: int) -> None:
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    engine = InContext(
        str(tiny.save(tiny.klein, tmp_path / "klein")), height=32, width=32, num_inference_steps=2,
        max_sequence_length=24, text_encoder_out_layers=(0, 1),
    )  # fmt: skip
    context = make_context(tmp_path, lambda *_: {}, on_step=run_out, generator=engine)  # type: ignore[arg-type]
    (attempt,) = call(graph, context).attempts
    assert attempt.offload_levels == LEVELS


@pytest.mark.parametrize("apart", [False, True])
def test_the_run_stores_the_levels_and_its_traces_show_them(
    place: Path, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(faulty_generator.install(place / "more"))
    overrides = {"worker.process": apart, "generator.backend": "faulty"}
    results = [draw(prompt, graph="direct", overrides=overrides) for prompt in ("small", "large")]
    levels = [result.outcome.best.offload_levels for result in results if result.outcome.best]
    assert levels == [LEVELS[:1], LEVELS]
    texts = [trace(result.run_id) for result in results]
    assert "→ vae_tiling" not in texts[0]
    assert "whole → vae_tiling" in texts[1]
    export(run_table().get(results[1].run_id), home(), place / "storyboard.html")
    assert "whole → vae_tiling" in (place / "storyboard.html").read_text("utf-8")
    if isinstance(worker := build_generator(load(overrides=overrides)), Worker):
        worker.close()


def test_an_engine_without_offloading_reports_no_levels(place: Path) -> None:
    best = draw("two things").outcome.best
    assert best is not None and best.offload_levels == ()
