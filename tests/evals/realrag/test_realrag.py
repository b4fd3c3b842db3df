"""The comparison of RealRAG's retrievers: its questions, its sums and what it says of the paper's order."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pleinair.evals.realrag.library import TIERS, names_of, write_library
from pleinair.evals.realrag.measure import chosen, find_all, questions
from pleinair.evals.realrag.report import COLUMNS, METHODS, share, summarise, verdict, write_markdown
from pleinair.evals.realrag.run import read_options
from pleinair.tools.pocket.world import SPECIES
from pleinair.tools.retrieval.library import Library

ABOUT: dict[str, Any] = {
    "command": "python …",
    "seeds": 3,
    "each": 6,
    "look_alikes": 4,
    "choices": {"epochs": 4, "collisions": "class"},
}
ABOUT |= {"distance": dict.fromkeys((*COLUMNS, "real"), 0.125)}
LIKE = {"CLIP-T": 0.25, "looks": 0.5}
RIGHT = {"zero": 0, "normal": 3, "reflective": 6}  # of ten


def found() -> list[dict[str, Any]]:
    """Ten questions a tier and library: reflective starts behind normal and ends before it."""
    records = []
    for where, tier, number in itertools.product(("seen", "held out"), TIERS, range(10)):
        at = {"seed": 0, "tier": tier, "name": f"{tier} {number}", "library": where}
        records.append(at | {"method": "zero", "epoch": 0, "right": False})
        for method, epoch in itertools.product(("normal", "reflective"), (2, 4)):
            share = RIGHT[method] if epoch == 4 else 2 * (method == "normal")
            records.append(at | {"method": method, "epoch": epoch, "right": number < share})
    return records


def drawn() -> list[dict[str, Any]]:
    return [
        {"tier": tier, "column": column, "right": column == "reflective", "likeness": LIKE}
        for tier, column in itertools.product(TIERS, COLUMNS)
    ]


def test_the_last_epoch_counts() -> None:
    figures = summarise(found(), drawn(), ABOUT)
    for where in ("seen", "held out"):
        shares = {method: figures["recall"][where]["all"][method]["share"] for method in METHODS}
        assert shares == pytest.approx({"zero": 0, "normal": 0.3, "reflective": 0.6})
        assert figures["recall"][where]["rare"]["zero"]["n"] == 10


def test_the_curve_has_every_checkpoint() -> None:
    curve = summarise(found(), drawn(), ABOUT)["curve"]["held out"]
    assert curve["normal"] == pytest.approx({"2": 0.2, "4": 0.3})
    assert curve["reflective"] == pytest.approx({"2": 0.0, "4": 0.6})


def test_gains_are_of_the_same_questions() -> None:
    gained = summarise(found(), drawn(), ABOUT)["recall_gains"]["seen"]["all"]
    assert gained["reflective - normal"]["gain"] == pytest.approx(0.3)
    assert gained["reflective - normal"]["n"] == 30
    low, high = gained["reflective - normal"]["ci"]
    assert 0 < low < 0.3 < high


def test_seeds_and_wordings_of_a_species_are_one_value() -> None:
    once, thrice = (summarise(found() * times, drawn() * times, ABOUT) for times in (1, 3))
    assert thrice["recall"] == once["recall"]
    assert thrice["recall_gains"] == once["recall_gains"]


def test_a_species_counts_by_its_mean() -> None:
    records = [{"name": name, "right": right} for name, right in zip("aab", (True, False, True), strict=True)]
    assert share(records)["share"] == pytest.approx(0.75)
    assert share(records)["n"] == 2


@pytest.mark.parametrize(
    ("ci", "said"),
    [
        ((0.1, 0.2), "holds"),
        ((-0.1, 0.2), "is not shown"),
        ((-0.2, -0.1), "is reversed"),
        (None, "not measured"),
    ],
)
def test_an_order_holds_only_where_its_interval_says_so(ci: Any, said: str) -> None:
    assert verdict({"ci": ci}) == said


def test_the_page_says_what_was_not_measured_and_each_step() -> None:
    page = write_markdown(summarise(found(), drawn(), ABOUT))
    assert "pictures a species and 4 look-alikes, 4 epochs" in page
    assert "FID itself is not measured" in page
    assert f"| Fréchet distance |{' 12.50 |' * (len(COLUMNS) + 1)}" in page
    assert "| found, held out | all | reflective - normal | 30.0 % [" in page
    assert "| CLIP-T | 25.00 | 25.00 |" in page


def test_without_pictures_the_rest_is_there() -> None:
    page = write_markdown(summarise(found(), [], ABOUT | {"distance": {}}))
    assert "| drawn | all | reflective - zero | – | not measured |" in page


def test_pictures_are_of_the_tiers_in_turn_and_the_same_for_more() -> None:
    few, more = list(chosen(9)), list(chosen(36))
    assert few == more[:9]
    assert Counter(one.tier for one in more) == dict.fromkeys(TIERS, 12)
    assert len({one.name for one in more if one.tier == "rare"}) == 12


def test_a_question_is_right_where_the_first_picture_is_of_the_species() -> None:
    import numpy as np

    asked = questions()
    queries = np.stack([np.eye(len(SPECIES))[SPECIES.index(one)] for one, _ in asked]).astype(np.float32)
    names = [one.name for one in SPECIES]
    pool = np.eye(len(SPECIES), dtype=np.float32)
    assert all(one.right for one in find_all(0, "seen", "zero", 0, pool, names, queries))
    assert not any(one.right for one in find_all(0, "seen", "zero", 0, pool, names[::-1], queries))


def test_look_alikes_have_no_name_and_come_last(tmp_path: Path) -> None:
    plain, more = tmp_path / "plain", tmp_path / "more"
    write_library(plain, seed=1, each=1, look_alikes=0)
    write_library(more, seed=1, each=1, look_alikes=5)
    without, library = Library.open(plain), Library.open(more)
    assert names_of(without, without.items) == names_of(library, library.items)[: len(SPECIES)]
    assert [*names_of(library, library.items)][len(SPECIES) :] == [""] * 5
    assert {one.license for one in library.items.values()} == {"CC0-1.0"}
    assert not library.problems


def test_the_defaults_are_three_seeds() -> None:
    options = read_options([])
    assert (options.seeds, options.prompts, options.collisions) == (3, 36, "class")
