"""The `direct` graph with fake engines."""

from pathlib import Path

from support.fake_engines import SquareGenerator, call, make_context

from pleinair.graphs import direct


def test_direct_generates_one_image_and_leaves_it_unchecked(tmp_path: Path) -> None:
    generator = SquareGenerator()
    output = call(direct.graph, make_context(tmp_path, lambda *_: "", generator=generator), "a finch")
    assert output.outcome is not None and output.outcome.best is not None
    assert (output.outcome.ending, output.outcome.limit) == ("unchecked", None)
    assert len(generator.requests) == 1
