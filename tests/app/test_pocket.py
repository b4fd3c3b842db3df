"""Pocket profile: sizes of the shipped models, and whole runs with them."""

import json
from pathlib import Path

import pytest

from pleinair.app.api import draw, home, run_table, submit
from pleinair.app.settings import PACKAGED, read_profile
from pleinair.app.storyboard.export import export
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.types import BadInput

GENERATOR = SHIPPED / "catalogue" / "generator" / "pocket.json"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_the_profile_has_the_sizes_of_the_trained_generator() -> None:
    trained = json.loads(GENERATOR.read_text(encoding="utf-8"))
    trained["slots"] = trained.pop("references")
    profile = read_profile("pocket")["generator"]
    assert {key: profile.get(key) for key in trained} == trained


def test_profiles_are_packaged() -> None:
    assert (PACKAGED / "pocket.toml").is_file()


@pytest.mark.slow
def test_a_run_with_the_pocket_models(alone: Path) -> None:
    result = draw("a blue jay in the snow", seed=1, overrides={"budget.attempts": 2})
    assert result.outcome.ending in ("accepted", "stopped"), result.outcome.reason
    assert result.picture is not None and result.outcome.best is not None
    export(run_table().get(result.run_id), home(), alone / "storyboard.html")
    assert "pocket models" in (alone / "storyboard.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_prompt_that_the_pocket_model_cannot_parse_is_refused(alone: Path) -> None:
    with pytest.raises(BadInput, match="names nothing that I can draw|I cannot draw"):
        draw("the economic consequences of the peace")


def test_a_size_that_would_take_hours_is_refused_before_a_row_is_written(alone: Path) -> None:
    message = r"at most 65,536 pixels, such as 256 × 256, got 1024 × 1024"
    before = run_table().newest(1)
    with pytest.raises(BadInput, match=message):
        submit("a blue jay in the snow", width=1024, height=1024)
    assert run_table().newest(1) == before
    submit("a blue jay in the snow", width=512, height=128)
