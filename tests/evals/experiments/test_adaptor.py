"""The adaptor's recall: how it is counted, and that its scenes are in no training."""

import numpy as np
import pytest

from pleinair.evals.experiments.adaptor import (
    ADAPTOR,
    held_out,
    lifts,
    means,
    recalls,
    wins_over_shuffled,
)
from pleinair.tools.types import BadInput


def test_an_image_counts_if_fewer_than_k_are_as_good() -> None:
    scores = np.zeros((12, 12), dtype=np.float32)
    np.fill_diagonal(scores, 0.5)
    scores[:3, 0] = scores[0, 0]  # two ties
    scores[:, 1] = 0.9  # eleven ties
    assert recalls(scores) == pytest.approx({1: 10 / 12, 5: 11 / 12, 10: 11 / 12})


def test_the_lifts_are_over_each_of_clips_ways() -> None:
    recall = {
        "CLIP, whole prompt": {1: 0.8},
        "CLIP, sub-queries": {1: 0.2},
        "none": {1: 0.0},
        ADAPTOR: {1: 0.4},
    }
    assert lifts(recall) == {"CLIP, whole prompt": 0.5, "CLIP, sub-queries": 2, "none": float("inf")}


def test_a_constant_scorer_wins_over_no_shuffled_image() -> None:
    assert wins_over_shuffled(np.ones((4, 4), dtype=np.float32)) == 0
    assert wins_over_shuffled(np.eye(4, dtype=np.float32)) == 1


def test_a_scenes_score_is_the_mean_over_its_two_names() -> None:
    scenes = held_out(2)
    names = [subject.species.name for scene in scenes for subject in scene.subjects]
    cosines = np.array([[0.1, 0.3, 0.5, 0.9], [0.0, 0.2, 0.4, 0.6]], dtype=np.float32)
    assert means(cosines, scenes, names) == pytest.approx(np.array([[0.2, 0.7], [0.1, 0.5]]))


def test_no_two_held_out_scenes_show_the_same_pair() -> None:
    pairs = [frozenset(subject.species.name for subject in scene.subjects) for scene in held_out(300)]
    assert len(set(pairs)) == 300 and {len(pair) for pair in pairs} == {2}
    with pytest.raises(BadInput, match="pairs of species"):
        held_out(20_000)
