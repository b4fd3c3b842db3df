"""Inpainting a box by every class that can, on random weights, and the base image's pixels around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import tiny_pipelines as tiny
from support.generator_requests import (
    LINEAR,
    REFERENCES,
    SIZE,
    draw,
    make_reference,
    make_request,
    stop_after,
)

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.families import INPAINTING
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.inpaint import MARGIN, blend_weights, composite, draw_mask
from pleinair.tools.diffusion.ip_adapter import IpAdapter
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.generate import generate
from pleinair.tools.images.masks import masked_box
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Box, Cancelled, Inpaint, Picture, Reference

# diffusers' Euler scheduler, SDXL's own, hands torch's numbers to numpy in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BASE = LINEAR.resize((SIZE, SIZE))
BOX: Box = (0.0, 0.25, 0.5, 0.75)
OUTSIDE = np.s_[:, 18:]  # right of the box and its margin of two pixels
TEXT = {"max_sequence_length": 24}
ADAPTER = {"adapter_subfolder": "models", "adapter_weight": "plus.safetensors"}


@dataclass(frozen=True)
class Case:
    """Pipeline class with its backend, its small model, and the references that it takes for a box."""

    pipeline: str
    engine: Callable[..., DiffusersEngine]
    make: Callable[[], Any]
    settings: dict[str, Any] = field(default_factory=dict)
    slots: int = 0


CASES = (
    Case("Flux2KleinPipeline", InContext, tiny.klein, {**TEXT, "text_encoder_out_layers": (0, 1)}, 3),
    Case("FluxKontextPipeline", InContext, tiny.kontext, TEXT, 1),
    Case("QwenImageEditPlusPipeline", InContext, tiny.qwen_edit),
    Case("StableDiffusionPipeline", IpAdapter, tiny.sd15, ADAPTER, 4),
    Case("StableDiffusionXLPipeline", IpAdapter, tiny.sdxl, ADAPTER, 4),
    Case("FluxPipeline", TextOnly, tiny.flux1, {"options": TEXT}),
    Case("QwenImagePipeline", TextOnly, tiny.qwen_edit),
    Case("ZImagePipeline", TextOnly, tiny.z_image, {"options": TEXT}),
)


def make_engine(case: Case, folder: Path) -> DiffusersEngine:
    settings = {
        **case.settings,
        "pipeline": case.pipeline,
        "height": SIZE,
        "width": SIZE,
        "reference_size": SIZE,
    }
    if case.engine is IpAdapter:
        tiny.save_ip_adapter(case.make().unet, folder / "adapter")
        settings["adapter_folder"] = str(folder / "adapter")
    return case.engine(str(tiny.save(case.make, folder / "model")), **settings)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.engine.__name__}-{case.pipeline}")
def case(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


@pytest.fixture(scope="module")
def engine(case: Case, tmp_path_factory: pytest.TempPathFactory) -> DiffusersEngine:
    return make_engine(case, tmp_path_factory.mktemp(case.pipeline))


def inpaint(box: Box = BOX, size: int = SIZE) -> Inpaint:
    return Inpaint(concept="finch", picture=Picture(sha256="0" * 64, width=size, height=size), box=box)


def paint(engine: DiffusersEngine, *images: Image.Image, **fields: Any) -> np.ndarray:
    references = tuple(make_reference() for _ in images)
    return draw(engine, [*images, BASE], **{"references": references, "inpaint": inpaint(), **fields})


def test_pixels_outside_the_box_are_unchanged(engine: DiffusersEngine, case: Case) -> None:
    capabilities = engine.capabilities
    assert (capabilities.inpaint, capabilities.inpaint_slots) == (True, case.slots)
    before = np.asarray(BASE)
    counts = sorted({0, min(1, case.slots), case.slots})
    images = [paint(engine, *REFERENCES[:count]) for count in counts]
    for image in images:
        assert np.array_equal(image[OUTSIDE], before[OUTSIDE])
        assert (image[10:22, :14] != before[10:22, :14]).mean() > 0.5
    assert len({image.tobytes() for image in images}) == len(counts)


def test_a_mask_of_any_shape_leaves_all_else_unchanged(
    engine: DiffusersEngine, case: Case, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    changes = np.hypot(rows - 12, columns - 14) < 9
    base = BASE.copy()
    base.putalpha(Image.fromarray(~changes).convert("L"))
    picture = store.put(base, alpha=True)
    mask = Inpaint(concept="", picture=picture, box=masked_box(base), masked=True)
    references = tuple(
        make_reference(name).model_copy(update={"picture": store.put(image)})
        for name, image in zip(("finch", "coupe"), REFERENCES[:2], strict=True)
    )[: case.slots]

    def generated(**fields: Any) -> np.ndarray:
        request = make_request(inpaint=mask, **fields)
        return np.asarray(store.open(generate(request, generator=engine, store=store, on_step=no_callback)))

    alone, shown = generated(), generated(references=references)
    for image in (alone, shown):
        assert np.array_equal(image[~changes], np.asarray(BASE)[~changes])
        assert (image[changes] != np.asarray(BASE)[changes]).any(-1).mean() > 0.5
    assert np.array_equal(alone, shown) == (not references)  # the references of all concepts are sent


def test_the_box_depends_on_the_prompt_and_cancelling_changes_nothing(engine: DiffusersEngine) -> None:
    full, first = draw(engine), paint(engine)
    with pytest.raises(Cancelled):
        engine.generate(make_request(inpaint=inpaint()), [BASE], stop_after(1, []))
    assert np.array_equal(first, paint(engine))
    assert not np.array_equal(first, paint(engine, prompt="a coupe"))
    assert np.array_equal(full, draw(engine))


def test_too_many_references_for_a_box_are_refused(engine: DiffusersEngine, case: Case) -> None:
    with pytest.raises(BadInput, match=f"takes {case.slots} references for a box, got {case.slots + 1}"):
        paint(engine, *REFERENCES[: case.slots + 1])


def test_every_class_of_the_table_is_tested() -> None:
    assert {case.pipeline for case in CASES} == set(INPAINTING)


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> DiffusersEngine:
    return make_engine(CASES[0], tmp_path_factory.mktemp("klein"))


@pytest.mark.parametrize(
    ("inpainting", "message"),
    [
        (inpaint((0.5, 0.25, 1.25, 0.75)), r"box \(0\.5, 0\.25, 1\.25, 0\.75\): must be 0"),
        (inpaint((0.5, 0.75, 0.25, 1.0)), "must be 0 ≤ x0 < x1 ≤ 1"),
        (inpaint((0.5, 0.5, 0.5625, 1.0)), r"box of 2 × 16 pixels is too small: wanted at least 4 × 4"),
        (inpaint(size=64), "image to inpaint has 64 × 64 pixels; must be 32 × 32"),
    ],
)
def test_an_invalid_box_is_refused(klein: DiffusersEngine, inpainting: Inpaint, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        paint(klein, inpaint=inpainting)


def test_only_the_references_of_its_concept_are_sent(klein: DiffusersEngine) -> None:
    other: Reference = make_reference("coupe")
    pair = draw(klein, [*REFERENCES[:2], BASE], references=(make_reference(), other), inpaint=inpaint())
    assert np.array_equal(pair, paint(klein, REFERENCES[0]))
    assert not np.array_equal(pair, paint(klein, REFERENCES[1]))


def test_the_base_image_counts_in_the_sequence(tmp_path: Path) -> None:
    settings = {**CASES[0].settings, "max_sequence": 24 + 64 + 64}
    case = Case("Flux2KleinPipeline", InContext, tiny.klein, settings, 3)
    engine = make_engine(case, tmp_path)
    assert paint(engine).shape == draw(engine, REFERENCES[:1]).shape
    with pytest.raises(BadInput, match="over the limit of 152"):
        paint(engine, REFERENCES[0])


def test_inpainting_is_refused_if_the_class_cannot_or_it_is_off(tmp_path: Path) -> None:
    off = make_engine(Case("Flux2KleinPipeline", InContext, tiny.klein, {"inpaint": False}), tmp_path / "off")
    none = make_engine(Case("OmniGenPipeline", InContext, tiny.omnigen), tmp_path / "none")
    for engine in (off, none):
        assert (engine.capabilities.inpaint, engine.capabilities.inpaint_slots) == (False, 0)
        with pytest.raises(BadInput, match="cannot inpaint"):
            engine.generate(make_request(inpaint=inpaint()), [BASE], no_callback)


def test_the_mask_is_the_box_with_its_margin_in_whole_units() -> None:
    mask = np.asarray(draw_mask((0.25, 0.25, 0.5, 0.5), (64, 32), unit=8))
    assert mask.shape == (32, 64)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max()) == (8, 39)  # 16 - 4 to 32 + 4
    assert (rows.min(), rows.max()) == (0, 23)  # 8 - 4 to 16 + 4


def test_the_new_image_fades_in_the_margin_only() -> None:
    weights = blend_weights((0.25, 0.5, 0.75, 1.0), (64, 64))
    margin = round(64 * MARGIN)
    assert (weights[32:, 16:48] == 1).all()  # down to the image's edge
    assert (weights[:, : 16 - margin] == 0).all()
    assert (weights[: 32 - margin] == 0).all()
    between = weights[48, 16 - margin : 16]
    assert (np.diff(between) > 0).all()
    assert 0 < between[0] < between[-1] < 1


def test_a_new_image_of_another_size_is_scaled_to_the_base() -> None:
    base, image = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (32, 32), "black")
    mixed = np.asarray(composite(base, image, (0.25, 0.25, 0.75, 0.75)))
    assert mixed.shape == (64, 64, 3)
    assert (mixed[16:48, 16:48] == 0).all()
    assert (mixed[:12] == 255).all()
