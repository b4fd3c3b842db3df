"""Runs in the world of invented names, stored before there was a second world: seen, replayed, continued."""

import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pleinair.app.api import home, run_table
from pleinair.app.cli.main import app
from pleinair.app.libraries import library_folders
from pleinair.app.pocket import world_of
from pleinair.app.runs.request import read_request
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import replay

STORED = Path(__file__).parents[2] / "support" / "first_world.tgz"  # a home and the images of its runs
RUN = "20261130-114436-29a15a94"  # "a saverel wren in the snow"
THREAD = "20261130-114522-95791afe"  # "a saverel wren beside a telma wren", "now make it night"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(STORED) as file:
        file.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "pleinair"))
    monkeypatch.setenv("PLEINAIR_PATHS__OUT", str(tmp_path / "out"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def printed(*words: str, lines: str = "") -> str:
    result = CliRunner().invoke(app, words, input=lines)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_they_name_no_world_and_have_the_first_one(stored: Path) -> None:
    text = run_table().get(RUN).request_json
    assert '"world"' not in text
    settings = read_request(text).settings
    assert world_of(settings) == settings.mllm.arguments["world"] == "invented"
    assert "pocket-library-" in library_folders(settings, home())[0]


def test_they_are_listed_shown_and_exported(stored: Path) -> None:
    assert printed("runs", "list").count("accepted") == 3
    assert "saverel wren in the snow" in printed("runs", "show", RUN)
    assert "reference    saverel wren ← 01660.png" in printed("trace", "show", RUN)
    for name in ("run.html", "run.png", "run.json"):
        printed("trace", "export", RUN, str(stored / name))
    assert "a saverel wren in the snow" in (stored / "run.html").read_text("utf-8")


def test_a_replay_writes_the_same_image(stored: Path) -> None:
    again = replay(RUN, str(stored / "again"))
    (before,) = (stored / "pictures").glob(f"{RUN}*.png")
    assert again.picture is not None and again.picture.read_bytes() == before.read_bytes()


def test_a_fork_draws_in_the_first_world(stored: Path) -> None:
    result = fork(RUN, at="generate:1", seed=5, out=str(stored / "out"))
    assert result.outcome.best is not None
    assert (result.outcome.best.picture.width, result.outcome.ending) == (64, "accepted")
    (reference,) = result.outcome.best.request.references
    assert reference.concept == "saverel wren"


def test_a_chat_goes_on_in_the_second_world(stored: Path) -> None:
    output = CliRunner().invoke(app, ["chat", "--thread", THREAD], input="a robin at night\n").output
    assert "robin" in output and "refused" not in output
