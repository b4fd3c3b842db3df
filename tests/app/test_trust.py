"""Settings of a folder that somebody else made: none is obeyed without trust but the harmless ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pleinair.app.api import home
from pleinair.app.cli.main import app
from pleinair.app.settings import load, origins
from pleinair.app.toml.trust import is_trusted
from pleinair.tools.types import BadInput

GUARDED: dict[str, Any] = {
    "mllm.base_url": "http://evil.example/v1",
    "mllm.key_variable": "AWS_SECRET_ACCESS_KEY",
    "mllm.model": "expensive",
    "mllm.detector": "/somewhere",
    "generator.base_url": "http://evil.example/v1",
    "generator.key_variable": "AWS_SECRET_ACCESS_KEY",
    "generator.folder": "/somewhere",
    "generator.options.x": 1,
    "encoder.model": "local-dir:/somewhere",
    "retrieval.second.backend": "open_clip",
    "retrieval.method": "plugin",
    "retrieval.arguments.file": "/etc/passwd",
    "retrieval.licenses": [],
    "library.folder": "/etc",
    "paths.home": "/somewhere",
    "paths.out": "/somewhere",
    "crossmodal.adaptor": "/somewhere",
    "worker.process": True,
    "budget.attempts": 64,
    "budget.usd": 1000.0,
    "profile": "gpt_image",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PLEINAIR_TRUST", raising=False)
    return tmp_path


def write(key: str, value: Any, more: str = "") -> None:
    Path("pleinair.toml").write_text(f"{key} = {json.dumps(value)}\n{more}", encoding="utf-8")


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize(("key", "value"), GUARDED.items(), ids=list(GUARDED))
def test_a_key_is_not_obeyed_without_trust(
    key: str, value: Any, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    plain = load()
    write(key, value, "[image]\nwidth = 128\n")
    with pytest.raises(BadInput, match=f"sets {key}: not obeyed, .*not trusted") as refusal:
        load()
    assert "pleinair trust" in refusal.value.remedy
    assert load(untrusted="ignore").model_copy(update={"image": plain.image}) == plain
    assert home().home == folder / "home"
    monkeypatch.setenv("PLEINAIR_TRUST", "none")
    settings = load()
    assert settings.image.width == 128 and settings.model_copy(update={"image": plain.image}) == plain


def test_a_draw_is_refused_and_reading_runs_is_not() -> None:
    write("mllm.base_url", "http://evil.example/v1")
    refused = call("draw", "a wren")
    assert (refused.exit_code, "pleinair trust" in refused.stderr) == (2, True)
    assert call("runs", "list").exit_code == 0


def test_trust_covers_one_version_of_a_file_and_its_profiles(folder: Path) -> None:
    (folder / "mine.toml").write_text('extends = "pocket"\nbudget.attempts = 7', encoding="utf-8")
    write("profile", "./mine.toml")
    trusted = call("trust")
    assert (trusted.exit_code, trusted.stdout.splitlines()[0]) == (0, "profile")
    assert load().budget.attempts == 7
    (folder / "mine.toml").write_text('extends = "pocket"\nbudget.attempts = 8', encoding="utf-8")
    with pytest.raises(BadInput, match="not trusted"):
        load()
    assert call("trust", str(folder)).exit_code == 0 and load().budget.attempts == 8
    assert call("trust", "--remove").exit_code == 0 and not is_trusted(Path("pleinair.toml"))


def test_trust_of_nothing_is_refused(folder: Path) -> None:
    result = call("trust", str(folder / "config"))
    assert (result.exit_code, "no such file" in result.stderr) == (2, True)


def test_the_environment_can_trust_every_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    write("budget.attempts", 9)
    monkeypatch.setenv("PLEINAIR_TRUST", "all")
    assert load().budget.attempts == 9
    monkeypatch.setenv("PLEINAIR_TRUST", "perhaps")
    with pytest.raises(BadInput, match="PLEINAIR_TRUST = 'perhaps': must be all, none or empty"):
        load()


def test_the_users_own_file_needs_no_trust(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = folder / "config" / "pleinair"
    own.mkdir(parents=True)
    (own / "pleinair.toml").write_text("budget.attempts = 5", encoding="utf-8")
    assert load().budget.attempts == 5
    monkeypatch.chdir(own)
    assert load().budget.attempts == 5


def test_the_origin_of_each_setting_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    write("retrieval.k", 8, "image.width = 128\n")
    monkeypatch.setenv("PLEINAIR_IMAGE__WIDTH", "192")
    rows = [tuple(row) for row in origins(overrides={"budget.attempts": 2})]
    assert rows == [
        ("profile", "pocket", "default"),
        ("budget.attempts", 2, "the request"),
        ("image.width", 192, "environment"),
        ("retrieval.k", 8, "pleinair.toml"),
    ]
    printed = call("settings", "--set", "budget.attempts=2").stdout.splitlines()
    assert printed[1:] == [
        "budget.attempts = 2 (the request)",
        "image.width = 192 (environment)",
        "retrieval.k = 8 (pleinair.toml)",
    ]
    assert json.loads(call("settings", "--json").stdout)[1]["origin"] == "environment"
    assert "retrieval.k = 8 (pleinair.toml)" in call("draw", "a hoopoe", "--dry-run").stdout
