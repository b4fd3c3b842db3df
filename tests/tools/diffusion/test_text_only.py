"""Text-only generation by each class, loaded from the folder of any class that has its parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import tiny_pipelines as tiny
from support.generator_requests import REFERENCES, draw, loaded_pipeline, make_request, stop_after

from pleinair.tools.diffusion.families import TEXT_ONLY
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import BadInput, Cancelled

# diffusers' Euler scheduler, SDXL's own, hands torch's numbers to numpy in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("pipeline", TEXT_ONLY)
def test_generates_from_text_and_stops(pipeline: str, tmp_path: Path) -> None:
    make, options = tiny.TEXT_ONLY[pipeline]
    engine = TextOnly(str(tiny.save(make, tmp_path)), pipeline=pipeline, height=32, width=32, options=options)
    first = draw(engine)
    unit = loaded_pipeline(engine).vae_scale_factor * engine.family.patch
    assert engine.capabilities.multiple_of == unit  # read from the config alone
    assert not np.array_equal(first, draw(engine, seed=1))
    with pytest.raises(Cancelled):
        engine.generate(make_request(), (), stop_after(1, []))
    assert np.array_equal(first, draw(engine))
    with pytest.raises(BadInput, match="takes 0 references, got 1"):
        draw(engine, REFERENCES[:1])
