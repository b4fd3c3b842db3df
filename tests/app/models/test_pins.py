"""A pull pins the commits that a profile leaves open, once; every later run loads them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_hub import COMMIT, Hub, connect, serving, weights
from typer.testing import CliRunner, Result

from pleinair.app.api import run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.engines import build_backend
from pleinair.app.models.pins import read_pins
from pleinair.app.paths import places
from pleinair.app.settings import load
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.model_files.open_clip import FILES as CLIP_FILES
from pleinair.tools.model_files.open_clip import clip_source
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.types import BadInput

OTHER = "b" * 40
MODEL, SIGLIP = "tests/tiny", "timm/ViT-B-16-SigLIP"
ENCODER = {path.name: path.read_bytes() for path in (SHIPPED / "encoder").iterdir() if path.is_file()}
HUB = {
    MODEL: {
        "model_index.json": b'{"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}',
        "transformer/config.json": b"{}",
        "transformer/diffusion_pytorch_model.safetensors": weights(),
    },
    SIGLIP: {**ENCODER, "open_clip_pytorch_model.bin": b"a pickle"},
    "timm/vit_large_patch14_clip_224.openai": {"open_clip_pytorch_model.bin": b"a pickle"},
}
PROFILE = """
extends = "pocket"
[generator]
backend = "text_only"
pipeline = "FluxPipeline"
model = "tests/tiny"
revision = ""
[encoder]
backend = "open_clip"
model = "ViT-B-16-SigLIP"
revision = "webli"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Provide a home of its own, with an empty cache and a hub."""
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "home"))
    with serving(HUB) as address:
        connect(address, tmp_path / "hub", monkeypatch)
        yield tmp_path / "home"


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return str(path)


def pull(profile: str, *words: str) -> Result:
    return CliRunner().invoke(app, ["models", "pull", profile, *words])


def test_a_pull_pins_a_commit_once_and_runs_load_it(profile: str, home: Path) -> None:
    result = pull(profile, "--yes")
    assert result.exit_code == 0, result.stderr
    assert f"{MODEL} at {COMMIT}" in result.stdout and f"pinned in {home / 'commits.json'}" in result.stdout
    assert read_pins(places()) == {MODEL: COMMIT, "ViT-B-16-SigLIP/webli": COMMIT}
    settings = load(profile)
    built: Any = build_backend("generator", settings.generator)
    assert built.capabilities.id == f"text_only:{MODEL}@{COMMIT}"
    assert settings.encoder.arguments["commit"] == COMMIT
    submit("a robin", profile=profile)
    (run,) = run_table().newest(1)
    assert json.loads(run.request_json)["settings"]["generator"]["revision"] == COMMIT
    Hub.requests.clear()
    again = pull(profile, "--yes")
    assert again.exit_code == 0 and "pinned in" not in again.stdout
    assert "GET model" not in Hub.requests  # the page of the present commit


def test_a_commit_in_the_settings_takes_precedence(profile: str) -> None:
    pull(profile, "--yes")
    assert load(profile, {"generator.revision": OTHER}).generator.arguments["revision"] == OTHER
    elsewhere = load(profile, {"generator.folder": "x"}).generator.arguments
    assert "revision" not in elsewhere


def test_without_a_yes_nothing_is_pinned(profile: str) -> None:
    assert pull(profile).exit_code == 2
    assert read_pins(places()) == {}


def test_a_run_without_a_commit_is_refused_with_the_command_to_use(profile: str) -> None:
    with pytest.raises(BadInput, match=rf"generator\.revision = '': .*`pleinair models pull {profile}`"):
        submit("a robin", profile=profile)
    assert run_table().newest(1) == []


def test_a_damaged_file_of_pins_is_refused(profile: str, home: Path) -> None:
    home.mkdir()
    for text in ("{", "[]", '{"a/b": "main"}'):
        (home / "commits.json").write_text(text, encoding="utf-8")
        with pytest.raises(BadInput, match=r"commits\.json: "):
            load(profile)
        assert load("pocket").profile == "pocket"  # which has nothing to pin


def test_an_encoder_by_name_is_pulled_and_loaded_without_its_pickle(profile: str) -> None:
    with pytest.raises(BadInput, match=rf"encoder\.commit = '': wanted a commit of {SIGLIP}"):
        OpenClipEncoder("ViT-B-16-SigLIP", "webli")
    pull(profile, "--yes")
    table = load(profile).encoder.arguments
    assert not any("bin" in line for line in Hub.requests)
    pulled, shipped = OpenClipEncoder(**table, device="cpu"), OpenClipEncoder("local-dir:pocket/encoder")
    assert (pulled.encode_text(["a robin"]) == shipped.encode_text(["a robin"])).all()
    assert pulled.id.partition("@")[2] == shipped.id.partition("@")[2]


def test_an_encoder_that_is_only_a_pickle_is_refused(tmp_path: Path) -> None:
    clip_source({"model": "ViT-L-14", "revision": "openai", "commit": COMMIT}).download(CLIP_FILES)
    with pytest.raises(BadInput, match=r"has no open_clip_model\.safetensors"):
        OpenClipEncoder("ViT-L-14", "openai", commit=COMMIT)
    assert not any("bin" in line for line in Hub.requests)
    folder = Path(shutil.copytree(SHIPPED / "encoder", tmp_path / "copy"))
    (folder / "open_clip_model.safetensors").rename(folder / "model.safetensors")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"a pickle")  # which open_clip would load
    with pytest.raises(BadInput, match="a pickle is never read"):
        OpenClipEncoder(f"local-dir:{folder}")


def test_a_download_without_disk_space_is_refused(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pleinair.app.models.download.RESERVE", 2**60)
    result = pull(profile, "--yes")
    assert result.exit_code == 5 and "free" in result.stderr and "The download is" in result.stderr
    assert read_pins(places()) == {} and not any(
        "safetensors" in line for line in Hub.requests if "GET" in line
    )
