"""SD 1.5 and SDXL with an IP-Adapter-plus and a ViT, all of random weights; and boxes of references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_pipelines as tiny
from support.fake_engines import SquareGenerator, call, decomposition, make_context
from support.generator_requests import REFERENCES, draw, make_reference, make_request, stop_after

from pleinair.graphs.pleinair import graph
from pleinair.tools.diffusion.ip_adapter import IpAdapter, box_masks
from pleinair.tools.types import BadInput, Cancelled, Hit

# diffusers' Euler scheduler, SDXL's own, hands torch's numbers to numpy in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CLASSES = {"StableDiffusionPipeline": tiny.sd15, "StableDiffusionXLPipeline": tiny.sdxl}


def make_engine(folder: Path, pipeline: str, **settings: Any) -> IpAdapter:
    defaults = {
        "adapter_folder": str(folder / "adapter"),
        "adapter_subfolder": "models",
        "adapter_weight": "plus.safetensors",
        "height": 32,
        "width": 32,
        "options": {},
    }
    return IpAdapter(str(folder / "base"), pipeline=pipeline, **{**defaults, **settings})


@pytest.fixture(scope="module", params=CLASSES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    tiny.save(CLASSES[request.param], path / "base")
    tiny.save_ip_adapter(CLASSES[request.param]().unet, path / "adapter")
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> IpAdapter:
    return make_engine(folder, folder.name.rstrip("0123456789"))


def test_generates_with_any_number_of_references(engine: IpAdapter) -> None:
    assert engine.capabilities.slots == 4
    images = [draw(engine, images=REFERENCES[:count]) for count in (0, 1, 4)]
    assert len({image.tobytes() for image in images}) == 3


def test_without_references_the_adapter_is_off(engine: IpAdapter) -> None:
    first = draw(engine)
    draw(engine, images=REFERENCES[:2])
    assert np.array_equal(first, draw(engine))


def test_a_reference_with_a_place_acts_there_only(engine: IpAdapter) -> None:
    """In latents the adapter changes the left half at one step; the autoencoder spreads it a little."""
    without = draw(engine, num_inference_steps=1)
    reference = make_reference(box=(0.0, 0.0, 0.25, 1.0))
    masked = draw(engine, REFERENCES[:1], references=(reference,), num_inference_steps=1)
    change = np.abs(masked.astype(int) - without).sum(axis=(0, 2))
    assert change[:16].sum() > change[16:].sum()
    everywhere = draw(engine, REFERENCES[:1], references=(make_reference(),), num_inference_steps=1)
    assert not np.array_equal(masked, everywhere)


def test_each_of_two_references_acts_in_its_box(engine: IpAdapter) -> None:
    pair = (make_reference("finch", (0, 0, 0.5, 1)), make_reference("coupe", (0.5, 0, 1, 1)))
    turned = (make_reference("finch", (0.5, 0, 1, 1)), make_reference("coupe", (0, 0, 0.5, 1)))
    first = draw(engine, REFERENCES[:2], references=pair)
    assert not np.array_equal(first, draw(engine, REFERENCES[:2], references=turned))


def test_cancelling_does_not_change_the_next_image(engine: IpAdapter) -> None:
    before = draw(engine, images=REFERENCES[:1])
    calls: list[tuple[int, int]] = []
    with pytest.raises(Cancelled):
        engine.generate(make_request(), REFERENCES[:1], stop_after(1, calls))
    assert [done for done, _ in calls] == [0, 1]
    assert np.array_equal(before, draw(engine, images=REFERENCES[:1]))


def test_too_many_references_are_refused_before_anything_runs(engine: IpAdapter) -> None:
    with pytest.raises(BadInput, match="takes 4 references, got 5"):
        draw(engine, images=REFERENCES[:5])


def test_a_negative_prompt_changes_the_image(engine: IpAdapter) -> None:
    assert engine.capabilities.negative_prompt
    assert not np.array_equal(draw(engine), draw(engine, negative_prompt="coupe"))


def test_the_scale_changes_the_id_and_the_image(engine: IpAdapter, folder: Path) -> None:
    weak = make_engine(folder, engine.settings.pipeline, scale=0.1)
    assert weak.capabilities.id != engine.capabilities.id
    assert not np.array_equal(draw(weak, REFERENCES[:1]), draw(engine, REFERENCES[:1]))


def test_the_strength_of_a_request_replaces_the_scale(engine: IpAdapter, folder: Path) -> None:
    assert "reference_strength" in engine.capabilities.accepts
    weak = draw(make_engine(folder, engine.settings.pipeline, scale=0.1), REFERENCES[:1])
    assert np.array_equal(weak, draw(engine, REFERENCES[:1], reference_strength=0.1))
    boxes = {"references": (make_reference("finch", (0, 0, 0.5, 1)),)}
    low, high = (draw(engine, REFERENCES[:1], reference_strength=value, **boxes) for value in (0.1, 0.9))
    assert not np.array_equal(low, high)


def test_only_safetensors_are_accepted(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"adapter_weight = 'x\.bin': .*safetensors"):
        make_engine(tmp_path, "StableDiffusionPipeline", adapter_weight="x.bin")


def test_a_reference_without_a_box_has_a_full_mask() -> None:
    masks = box_masks([None, (0.5, 0, 1, 0.5)], 32, 32)
    assert masks.shape == (1, 2, 32, 32)
    assert masks[0, 0].min() == 1
    assert masks[0, 1].sum() == 16 * 16
    assert masks[0, 1, 0, 31] == 1


LEFT = (0.0, 0.0, 0.5, 1.0)


def answer(schema: str, card: dict[str, Any], attempts: int) -> dict[str, Any]:
    """Report the first concept on the left, and the second missing there."""
    if schema == "Decomposition":
        return decomposition("finch", "coupe")
    statuses = {"finch": "present", "coupe": "missing"}
    return {
        "rows": [
            {"concept": concept, "status": status, "confidence": 0.9, "box": list(LEFT)}
            for concept, status in statuses.items()
        ]
    }


@pytest.mark.parametrize("boxes", [True, False])
def test_the_graph_sends_boxes_to_a_generator_that_uses_them(boxes: bool, tmp_path: Path) -> None:
    generator = SquareGenerator()
    generator.capabilities = generator.capabilities.model_copy(update={"boxes": boxes})
    hits = {"coupe": [Hit(id="coupe.png", score=0.9)]}
    call(graph, make_context(tmp_path, answer, hits, generator), prompt="a finch in a coupe")
    references = [reference for request in generator.requests for reference in request.references]
    assert {reference.box for reference in references} == {LEFT if boxes else None}
