"""How a model was placed, as memory allowed: told by the engine, kept in the run, seen in its traces."""

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
from pleinair.app.engines import chosen_generator
from pleinair.app.settings import load
from pleinair.app.storyboard.export import export
from pleinair.graphs.direct import graph
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.worker.worker import Worker

TRIED = ("whole", "vae_tiling")


def told(run_id: str) -> str:
    return CliRunner().invoke(app, ["trace", "show", run_id]).stdout


def test_an_engine_that_ran_out_of_memory_says_how_it_went_on(tmp_path: Path) -> None:
    left = [1]

    def run_out(done: int, total: int) -> None:
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    engine = InContext(
        str(tiny.save(tiny.klein, tmp_path / "klein")), height=32, width=32, num_inference_steps=2,
        max_sequence_length=24, text_encoder_out_layers=(0, 1),
    )  # fmt: skip
    context = make_context(tmp_path, lambda *_: {}, on_step=run_out, generator=engine)  # type: ignore[arg-type]
    (attempt,) = call(graph, context).attempts
    assert attempt.offload_levels == TRIED


@pytest.mark.parametrize("apart", [False, True])
def test_the_run_keeps_it_and_its_traces_tell_it(
    place: Path, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(faulty_generator.install(place / "more"))
    given = {"worker.process": apart, "generator.backend": "faulty"}
    results = [draw(prompt, graph="direct", overrides=given) for prompt in ("small", "large")]
    offload_levels = [result.outcome.best.offload_levels for result in results if result.outcome.best]
    assert offload_levels == [TRIED[:1], TRIED]
    texts = [told(result.run_id) for result in results]
    assert "placed" not in texts[0]
    assert "whole → vae_tiling" in texts[1]
    export(run_table().get(results[1].run_id), home(), place / "story.html")
    assert "whole → vae_tiling" in (place / "story.html").read_text("utf-8")
    if isinstance(worker := chosen_generator(load(overrides=given)), Worker):
        worker.close()


def test_an_engine_that_places_nothing_says_nothing(place: Path) -> None:
    best = draw("two things").outcome.best
    assert best is not None and best.offload_levels == ()
