"""The measurement of decoding runs; its figures depend on the machine."""

import re
from typing import Any

import pytest

from pleinair.evals.experiments import decoding
from pleinair.tools.images.reading import read_picture


def test_it_prints_each_ratio_for_each_kind(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(decoding, "SIZES", ((64, 64, "PNG"), (256, 192, "JPEG")))
    decoding.main(["--files", "2"])
    output = capsys.readouterr().out
    assert len(re.findall(r"apart / here = \d", output)) == 4
    assert len(re.findall(r"cosine 1\.0\d+; its transform / ours = \d", output)) == 4


def test_its_images_differ_and_have_structure() -> None:
    first, second = (read_picture(decoding.photo(256, 192, "PNG", seed)) for seed in (0, 1))
    assert first.size == (256, 192) and first.tobytes() != second.tobytes()
    assert all(high - low > 120 for low, high in first.getextrema())  # type: ignore[misc]
