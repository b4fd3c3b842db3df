"""The whole loop tells a generator that heeds places where each reference acts, and no other one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.fake_engines import SquareGenerator, call, decomposition, make_context

from pleinair.graphs.pleinair import graph
from pleinair.tools.types import Hit

BOX = [0.0, 0.0, 0.5, 1.0]


def policy(schema: str, card: dict[str, Any], pictures: int) -> dict[str, Any]:
    """See the first concept on the left, and never the second."""
    if schema == "Decomposition":
        return decomposition("finch", "coupe")
    finch = {"concept": "finch", "status": "present", "confidence": 0.9, "box": BOX}
    return {"rows": [finch, {"concept": "coupe", "status": "missing", "confidence": 0.9, "box": BOX}]}


@pytest.mark.parametrize(("heeds", "wanted"), [(True, tuple(BOX)), (False, None)])
def test_only_a_generator_that_heeds_places_is_told(
    heeds: bool, wanted: tuple[float, ...] | None, tmp_path: Path
) -> None:
    generator = SquareGenerator()
    generator.capabilities = generator.capabilities.model_copy(update={"boxes": heeds})
    hits = {"coupe": [Hit(id="coupe.png", score=0.9)]}
    call(graph, make_context(tmp_path, policy, hits, generator), prompt="a finch in a coupe")
    boxes = {reference.box for request in generator.requests for reference in request.references}
    assert boxes == {wanted}
