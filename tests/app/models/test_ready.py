"""A key or a model that is missing is refused before a row is written; nothing is downloaded by a run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pleinair.app.cli.main import app
from pleinair.app.models.ready import find_missing
from pleinair.app.settings import load

COMMIT = "0" * 40
CASES = {
    "a key of the chat server": (("mllm.backend=openai", "mllm.model=m"), "OPENAI_API_KEY"),
    "a key of the image server": (("generator.backend=openai_images", "generator.model=m"), "OPENAI_API_KEY"),
    "a model": (
        (
            "generator.backend=in_context",
            "generator.pipeline=Flux2KleinPipeline",
            "generator.model=nobody/nothing",
            f"generator.revision={COMMIT}",
        ),
        "pleinair models pull",
    ),
    "two locations": (
        (
            "generator.backend=in_context",
            "generator.pipeline=Flux2KleinPipeline",
            "generator.model=nobody/nothing",
            "generator.folder=/somewhere",
        ),
        "generator.folder or generator.model",
    ),
}


@pytest.mark.parametrize(("settings", "words"), CASES.values(), ids=list(CASES))
def test_what_is_missing_is_refused_before_a_row(
    settings: tuple[str, ...], words: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    flags = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["draw", "two things", *flags])
    assert (result.exit_code, words in result.stderr) == (2, True), result.output
    assert not (place / "home" / "runs.sqlite").exists()
    dry = CliRunner().invoke(app, ["draw", "two things", "--dry-run", *flags])
    assert words in " ".join(dry.output.split())


def test_a_key_that_is_set_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = {"mllm.backend": "openai", "mllm.model": "m", "mllm.key_variable": "MY_KEY"}
    monkeypatch.delenv("MY_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert [fault.remedy for fault in find_missing(load(overrides=overrides))] == [
        "Set the environment variable MY_KEY."
    ]
    monkeypatch.setenv("MY_KEY", "x")
    assert not list(find_missing(load(overrides=overrides)))


def test_a_nearer_folder_replaces_a_model_and_the_other_way_round() -> None:
    arguments = load("klein", {"generator.folder": "/models/klein"}).generator.arguments
    assert arguments["folder"] == "/models/klein" and not arguments.keys() & {"model", "revision"}
    arguments = load("pocket", {"generator.model": "a/b", "generator.revision": COMMIT}).generator.arguments
    assert (arguments["model"], arguments["revision"], "folder" in arguments) == ("a/b", COMMIT, False)
