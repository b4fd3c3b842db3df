"""The plain form of each family, opened from the folder of whatever class has its parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_pipelines as tiny
from support.generator_requests import REFERENCES, draw, make_request, stop_after

from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import BadInput, Cancelled

# diffusers' Euler scheduler, SDXL's own, hands torch's numbers to numpy in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FLUX2 = {"max_sequence_length": 24, "text_encoder_out_layers": (0, 1)}
TEXT = {"max_sequence_length": 24}
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "StableDiffusionPipeline": (tiny.sd15, {}),
    "StableDiffusionXLPipeline": (tiny.sdxl, {}),
    "StableDiffusion3Pipeline": (tiny.sd3, TEXT),
    "FluxPipeline": (tiny.flux1, TEXT),
    "FluxKontextPipeline": (tiny.kontext, TEXT),
    "Flux2KleinPipeline": (tiny.klein, FLUX2),
    "Flux2KleinKVPipeline": (tiny.klein, FLUX2),
    "Flux2Pipeline": (tiny.flux2, FLUX2),
    "QwenImagePipeline": (tiny.qwen_edit, {}),
    "OmniGenPipeline": (tiny.omnigen, {}),
    "ZImagePipeline": (tiny.z_image, TEXT),
    "ZImageOmniPipeline": (tiny.z_image_omni, TEXT),
}


@pytest.mark.parametrize("pipeline", CASES)
def test_draws_from_text_and_stops(pipeline: str, tmp_path: Path) -> None:
    make, options = CASES[pipeline]
    engine = TextOnly(str(tiny.save(make, tmp_path)), pipeline=pipeline, height=32, width=32, options=options)
    first = draw(engine)
    unit = engine._forms[pipeline].vae_scale_factor * engine.family.patch
    assert engine.capabilities.multiple_of == unit  # read from its config alone
    assert not np.array_equal(first, draw(engine, seed=1))
    with pytest.raises(Cancelled):
        engine.generate(make_request(), (), stop_after(1, []))
    assert np.array_equal(first, draw(engine))
    with pytest.raises(BadInput, match="takes 0 references, got 1"):
        draw(engine, REFERENCES[:1])


def test_every_class_of_the_table_is_drawn_with() -> None:
    assert set(CASES) == set(TextOnly.families)
