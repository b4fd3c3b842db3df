"""The comparison of thresholds, on few queries."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from pleinair.evals.experiments import threshold

NAMES = "red heart,blue heart,umbrella,closed umbrella,lion,tiger cat,house cat,blue flag".split(",")
DRAWINGS = [
    {"annotation": name, "tags": "", "openmoji_tags": f"tag{place}", "skintone": ""}
    for place, name in enumerate(NAMES)
]


def test_it_abstains_on_queries_under_their_margin() -> None:
    decisions, sample = threshold.Decisions(), np.eye(2, dtype=np.float32)
    for kind, query in (("known", [1.0, 0.0]), ("foreign", [0.6, 0.8])):
        decisions.add(kind, kind, np.array([query], np.float32), sample)
    flat, mean = threshold.STATISTICS["flat"], threshold.STATISTICS["0.25 of mean"]
    assert decisions.abstains(flat, sample, 0.9).tolist() == [False, True]
    assert decisions.abstains(mean, sample, 0.9).tolist() == [True, True]  # 1 - 0.125 and 0.8 - 0.175


def test_a_query_is_unknown_without_the_drawings_that_have_its_words(capsys: Any) -> None:
    threshold.by_captions(DRAWINGS, count=8, seed=0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 * len(threshold.SHARES)
    strict = next(line for line in lines if line.startswith("name, by names and tags, share 1.0"))
    assert re.findall(r"known kept (\d\.\d+)", strict) == ["1.000", "1.000"]
    generic = re.findall(r"without generic \S+ \[\S+ \S+ \(n (\d)\)", strict)
    assert sum(map(int, generic)) == 7  # an umbrella is left for "closed umbrella"
