from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.scale.search import make_queries, make_vectors


def test_a_small_library_is_searched_without_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "search.json"
    main(["scale", "search", "--sizes", "300", "--repeats", "1", "--json", str(file)])
    (row,) = json.loads(file.read_text(encoding="utf-8"))["sizes"]
    assert (row["vectors"], row["recall"], row["recall_own"]) == (300, 1.0, 1.0)
    assert row["ratio_1"] == pytest.approx(row["flat_1_ms"] / row["ours_1_ms"])
    assert capsys.readouterr().out.count("\n") == 2


def test_the_vectors_are_of_length_one_and_the_same_for_a_seed() -> None:
    vectors, centres = make_vectors(40, 3)
    queries = make_queries(centres[:40], 4)
    for rows in (vectors, centres, queries):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert rows.dtype == np.float32
    np.testing.assert_array_equal(make_vectors(40, 3)[0], vectors)
    assert not np.array_equal(make_vectors(40, 4)[0], vectors)
