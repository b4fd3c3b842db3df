"""The measurement of an index runs; its figures depend on the machine."""

import re
from typing import Any

import pytest

from pleinair.evals.experiments import indexing


def test_it_prints_the_ratio_and_the_cosine(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(indexing, "_apart", indexing.measure)  # each in a process of its own takes long
    indexing.main(["--photos", "5", "--distinct", "2", "--side", "640", "--encoder", "pocket"])
    output = capsys.readouterr().out
    assert len(re.findall(r"pocket, (?:full|reduced): \d+\.\d s, at most \d+ MB", output)) == 2
    assert re.search(r"full / reduced = \d+\.\d+; cosine 0\.99[5-9]", output) or "cosine 1.0" in output
