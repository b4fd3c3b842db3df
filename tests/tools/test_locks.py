"""Models that several threads build at once all get their weights."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pleinair.tools.diffusion.loading import open_pipeline
from pleinair.tools.locks import serialized
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.detector import ConceptDetector

TRAINED = all((SHIPPED / part).is_dir() for part in ("generator", "detector", "encoder"))
TIMES = 3  # without taking turns the second model breaks within three


@pytest.mark.skipif(not TRAINED, reason="pocket models not trained yet")
@pytest.mark.filterwarnings("ignore")  # another thread may undo a library's filter
def test_a_pipeline_and_another_model_are_loaded_at_once() -> None:
    with ThreadPoolExecutor(2) as pool:
        drawing = pool.submit(
            lambda: [
                open_pipeline(SHIPPED / "generator", "Flux2KleinPipeline", torch.float32)
                for _ in range(TIMES)
            ]
        )
        while not drawing.done():
            detector = ConceptDetector()
            assert not [name for name, weight in detector._net.named_parameters() if weight.is_meta]
        assert len(drawing.result()) == TIMES


def test_what_builds_may_build_more() -> None:
    inner = serialized(lambda number: number + 1)
    assert serialized(lambda number: inner(number) * 2)(3) == 8
