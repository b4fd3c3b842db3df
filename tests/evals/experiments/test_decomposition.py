"""The measure of sub-queries on pairs of captions, and the captions themselves."""

from pathlib import Path

import pytest
from PIL import Image
from support.recording_chat import recording

from pleinair.evals.experiments.decomposition import (
    Pair,
    Passed,
    agreement,
    ask_all,
    main,
    measure,
    pairs_of,
    read_pairs,
    report,
)
from pleinair.tools.crossmodal import DECOMPOSITIONS
from pleinair.tools.retrieval.crossmodal.sparse import satisfaction, words
from pleinair.tools.types import BadInput

PAIRS = read_pairs()
COUNTS = {"two", "three", "four", "several", "pair", "bunch"}
STATES = {"parked", "sitting", "standing", "jumping", "resting", "curled", "perched", "wearing", "open"}


def test_there_are_60_different_images_at_least() -> None:
    assert len({pair.caption for pair in PAIRS}) == len({pair.query for pair in PAIRS}) == len(PAIRS) >= 60


@pytest.mark.parametrize("style", DECOMPOSITIONS)
def test_every_gold_sub_query_stands_in_its_query(style: str) -> None:
    for pair in PAIRS:
        assert satisfaction([pair.query], pair.gold[style]) == [(True,) * len(pair.gold[style])], pair


def test_published_sub_queries_have_no_count_no_state_and_nobody_with_clothes() -> None:
    for pair in PAIRS:
        for name in pair.gold["published"]:
            assert not set(words(name)) & (COUNTS | STATES | {"in", "with", "on"}), pair
    phrases = " ".join(name for pair in PAIRS for name in pair.gold["whole_phrases"])
    assert set(words(phrases)) >= {"two", "parked", "wearing", "in"}


def test_what_the_sparse_stage_lets_through_is_counted() -> None:
    pairs = [
        Pair("a red kite over a beach", "kite above a beach", {}),
        Pair("a dog on a beach", "two dogs asleep", {}),
        Pair("a cat", "a cat", {}),
    ]
    assert measure(pairs, [["kite", "beach"], ["dogs", "puppies"], []]) == [
        Passed(own=True, images=2, literal=1.0),
        Passed(own=False, images=0, literal=0.5),
        Passed(own=False, images=0, literal=0.0),
    ]


def test_agreement_is_the_overlap_by_the_match_rule() -> None:
    assert agreement([["a Red kite", "beach"], ["dog"]], [["red kite"], ["dog"]]) == pytest.approx(0.75)


def test_more_own_images_pass_by_the_published_rule_than_by_whole_phrases() -> None:
    own = {
        style: sum(result.own for result in measure(PAIRS, [pair.gold[style] for pair in PAIRS]))
        for style in DECOMPOSITIONS
    }
    assert own == {"published": 61, "whole_phrases": 38}  # in LOG.md


def test_the_models_sub_queries_are_measured_beside_gold_ones() -> None:
    pairs = PAIRS[:6]
    gold = {pair.query: pair.gold["published"] for pair in pairs}
    model = recording(lambda _, payload: {"subqueries": list(gold[payload["prompt"]])})
    lines = list(report(pairs, model, "mine"))
    rows = [line for line in lines if "by mine |" in line]
    assert len(rows) == 2 and rows[0].endswith("| 1.000 | 1.000 | 6 |")
    assert [line.startswith("own image let through") for line in lines[-2:]] == [True, True]


def test_a_declined_query_has_no_sub_query() -> None:
    model = recording(lambda *_: "I may not.")
    assert ask_all(PAIRS[:2], model, "published") == [(), ()]


def test_the_first_of_several_captions_is_the_query() -> None:
    pairs = pairs_of(["one", "a\nb\n\nc", "", "d\ne"])
    assert [(pair.query, pair.caption) for pair in pairs] == [("a", "b\nc"), ("d", "e")]
    with pytest.raises(BadInput, match="1 images have several captions"):
        pairs_of(["a\nb", "one"])


def test_the_command_prints_gold_rows_and_refuses_a_library_without_a_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([]) == 0
    assert "published, by gold | 92.4 %" in capsys.readouterr().out
    assert main(["--library", str(tmp_path)]) == 1
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["--library", str(tmp_path), "--mllm", "pocket"]) == 1
    assert "0 images have several captions" in capsys.readouterr().err
