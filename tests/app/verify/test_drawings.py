"""Fixed prompts, the encoder's throughput and the doctor's findings, with the pocket models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pleinair.app.verify import drawings
from pleinair.app.verify.child import measure
from pleinair.app.verify.embedding import time_encoder
from pleinair.app.verify.plan import CannotMeasure, Part, Plan, Row
from pleinair.tools.callbacks import no_callback
from pleinair.tools.pocket.catalogue.captions import with_article
from pleinair.tools.pocket.catalogue.language import reading
from pleinair.tools.pocket.catalogue.species import BY_NAME

MINE = 'extends = "pocket"\n'


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(MINE, "utf-8")
    (tmp_path / "work").mkdir()
    return Plan(
        work=str(tmp_path / "work"), out=str(tmp_path), profiles=(str(tmp_path / "mine.toml"),), tiny=True
    )


def test_the_prompts_name_species_that_the_generator_has_never_seen() -> None:
    assert len(drawings.SUBJECTS) == 10
    for name, place in drawings.SUBJECTS:
        prompt = f"{with_article(name)} {place}"
        assert BY_NAME[name].tier == "rare" and reading.write(reading.read(prompt).request) == prompt


def test_the_pocket_profile_draws_by_its_loop(plan: Plan) -> None:
    home = os.environ["PLEINAIR_HOME"]
    rows = list(measure(Part("images-pocket", "images", "pocket"), plan, no_callback))
    assert [row["ending"] for row in rows] == ["accepted", "accepted"]
    assert all(row["seconds"] > 0 and row["levels"] == ["whole"] for row in rows)
    assert os.environ["PLEINAIR_HOME"] == home and (plan.home / "runs.sqlite").is_file()
    with Image.open(Path(plan.out) / "images-pocket.png") as sheet:
        assert sheet.info == {} and len(sheet.convert("RGB").getcolors(2**20) or ()) > 100


def test_another_profile_draws_once_with_the_reference_of_the_subject(
    plan: Plan,
) -> None:
    part = Part("images-mine", "images", plan.profiles[0])
    rows = list(drawings.draw_prompts(part, plan, no_callback))
    assert [(row["ending"], row["best_attempt"]) for row in rows] == [("unchecked", 0)] * 2
    tasks = list(drawings._tasks(part, plan))
    assert all(task.reference and task.reference.is_file() for task in tasks)


def test_a_profile_without_its_models_is_skipped(plan: Plan) -> None:
    with pytest.raises(CannotMeasure, match="not downloaded"):
        list(drawings.draw_prompts(Part("images-klein", "images", "klein"), plan, no_callback))


def test_the_encoder_s_rates_are_those_of_the_files(plan: Plan) -> None:
    rows: Iterator[Row] = time_encoder(plan, no_callback)
    texts = [row["what"] for row in rows if row["per_s"] > 0 and row["n"] == 8 and row["weights"] == "real"]
    assert len(texts) == 4 and texts[-1].startswith("index files")
