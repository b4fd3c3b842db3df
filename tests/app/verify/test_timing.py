"""Timed models: their sizes, their operations, their references, and the offload level that they report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pleinair.app.verify.plan import CannotMeasure, Part, Plan, Row, make_parts
from pleinair.app.verify.random_pipelines import build_pipeline, empty_model, part_bytes
from pleinair.app.verify.shapes import SHAPES, TINY
from pleinair.app.verify.timed_models import RandomModel
from pleinair.app.verify.timing import count_operations, open_model, time_profile
from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.offload import OutOfMemory
from pleinair.tools.types import BadInput

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of a scheduler


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    return Plan(work=str(tmp_path / "work"), out=str(tmp_path), tiny=True, repeats=2)


def rows(profile: str, plan: Plan, compiled: bool = False) -> list[Row]:
    part = Part(f"times-{profile}", "times", profile, compiled)
    return list(time_profile(part, plan, no_callback))


def random_model(profile: str, plan: Plan, **changes: Any) -> RandomModel:
    model, _ = open_model(Part("times", "times", profile), plan)
    assert isinstance(model, RandomModel)
    model.steps = changes.pop("steps", model.steps)
    return model


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", 2.57),
        ("black-forest-labs/FLUX.2-klein-4B", 3.88),
        ("black-forest-labs/FLUX.2-klein-9b-kv", 9.08),
        ("black-forest-labs/FLUX.2-dev", 32.22),
        ("black-forest-labs/FLUX.1-Kontext-dev", 11.90),
        ("Qwen/Qwen-Image-Edit-2509", 20.43),
    ],
)
def test_the_sizes_are_the_published_ones(model: str, billions: float) -> None:
    count = sum(weights.numel() for weights in empty_model(SHAPES[model].denoiser).parameters())
    assert count / 1e9 == pytest.approx(billions, abs=0.02)


def test_the_adapter_has_the_sizes_of_vit_h() -> None:
    parts = part_bytes(SHAPES["stabilityai/stable-diffusion-xl-base-1.0"], itemsize=1)
    assert parts["image_encoder"] / 1e6 == pytest.approx(632, abs=1)


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_random_pipeline_has_the_weights_that_the_estimate_counts(name: str) -> None:
    shape = TINY[name]
    pipeline = build_pipeline(name, shape, "cpu", torch.float32)
    assert all(torch.isfinite(weights).all() for weights in pipeline.vae.parameters())
    for part, size in part_bytes(shape, 4).items():
        weights = sum(tensor.numel() for tensor in getattr(pipeline, part).parameters())
        is_adapted = shape.adapter and part == shape.part  # the adapter's weights are the U-Net's
        assert weights * 4 > size if is_adapted else weights * 4 == size


@pytest.mark.parametrize("profile", ["klein_kv", "sdxl", "kontext"])
def test_each_number_of_references_is_a_row(profile: str, plan: Plan) -> None:
    first, second = rows(profile, plan)
    assert [first["references"], second["references"]] == [0, 1]
    for row in (first, second):
        assert row["weights"] == "random" and row["levels"] == ["whole"] and row["estimate_gib"] > 0
        assert len(row["all_s"]) == 2 and min(row["all_s"]) <= row["s"] <= max(row["all_s"])
        assert row["tflop"] > 0
    assert second["tflop"] > first["tflop"]


def test_a_model_on_this_machine_is_called_by_its_engine(plan: Plan) -> None:
    first, second = rows("pocket", plan)
    assert first["weights"] == second["weights"] == "real"
    assert second["tflop"] > first["tflop"] and second["estimate_gib"] > first["estimate_gib"]
    assert first["load_s"] > 0


def test_operations_of_two_short_images_are_those_of_a_long_one(plan: Plan) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = random_model("klein_kv", plan, steps=5)  # whose first step is longer than the others
    with FlopCounterMode(display=False) as counter:
        model.draw(1, 5, 0)
    assert count_operations(model, 1) == counter.get_total_flops()


def test_images_differ_by_their_number_and_an_editing_model_draws_without_references(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    seen: list[torch.Tensor] = []
    decode = diffusers.AutoencoderKLQwenImage.decode

    def record(self: Any, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(latents)
        return decode(self, latents, *args, **kwargs)

    monkeypatch.setattr(diffusers.AutoencoderKLQwenImage, "decode", record)
    model = random_model("qwen_edit", plan)
    for number in (0, 1, 1):
        model.draw(0, 1, number)
    assert not seen[0].equal(seen[1]) and seen[1].equal(seen[2])


def test_a_model_that_runs_out_of_memory_reports_its_levels(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model("klein", plan)
    failures: Iterator[bool] = iter([True])
    arguments = RandomModel._arguments

    def run_out(self: RandomModel, *args: Any) -> dict[str, Any]:
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return arguments(self, *args)

    monkeypatch.setattr(RandomModel, "_arguments", run_out)
    model.draw(0, 1, 0)
    assert model.levels == ["whole", "vae_tiling"]


def test_a_model_that_cannot_fit_is_not_built(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__MEMORY_LIMIT", "1e-6")
    for profile in ("klein", "sdxl"):  # with and without an estimate of the steps
        with pytest.raises(OutOfMemory, match="would not fit"):
            rows(profile, plan)


def test_without_a_gpu_only_tiny_sizes_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CannotMeasure, match="no CUDA GPU"):
        rows("klein", Plan(work=str(tmp_path), out=str(tmp_path)))


def test_a_model_of_unknown_sizes_is_skipped_with_the_command_that_helps(plan: Plan) -> None:
    with pytest.raises(CannotMeasure) as caught:
        rows("omnigen", plan)
    assert "Shitao/OmniGen-v1-diffusers" in caught.value.message
    assert "pleinair models pull omnigen" in caught.value.remedy


def test_parts_are_chosen_by_kind_and_by_name(plan: Plan) -> None:
    assert [part.name for part in make_parts(plan, ["faiss", "times-sdxl"])] == [
        "machine",
        "faiss",
        "times-sdxl",
    ]
    full = Plan(work="", out="", profiles=("klein",))
    names = [part.name for part in make_parts(full, ["times"])]
    assert names == ["machine", "times-klein", "times-klein-compiled"]


@pytest.mark.parametrize(
    ("profiles", "only", "text"),
    [(("klein",), ["fais"], "faiss"), (("gpt_image",), (), "openai_images"), (("nothing",), (), "nothing")],
)
def test_an_unknown_part_or_profile_is_refused(profiles: tuple[str, ...], only: list[str], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        make_parts(Plan(work="", out="", profiles=profiles), only)
