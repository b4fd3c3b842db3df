"""A key or a model that is missing is refused before a row is written; nothing is downloaded by a run."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_hub import COMMIT as HUB_COMMIT
from support.fake_hub import Hub, cached, connect, serving, weights
from typer.testing import CliRunner

from pleinair.app.cli.main import app
from pleinair.app.models.inventory import BACKENDS
from pleinair.app.models.ready import find_missing
from pleinair.app.settings import load, profiles
from pleinair.tools.model_files.hub import NotDownloaded, Source
from pleinair.tools.types import BadInput

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
    "a branch": (
        (
            "generator.backend=in_context",
            "generator.pipeline=Flux2KleinPipeline",
            "generator.model=nobody/nothing",
            "generator.revision=main",
            "generator.allow_branch=true",
        ),
        "pleinair models pull",
    ),
    "an encoder": (
        ("encoder.backend=open_clip", "encoder.model=hf-hub:nobody/nothing", f"encoder.commit={COMMIT}"),
        "pleinair models pull",
    ),
    "a second encoder": (
        (
            "retrieval.second.backend=open_clip",
            "retrieval.second.model=ViT-B-32",
            "retrieval.second.revision=laion2b_s34b_b79k",
        ),
        "license: mit",
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


PIPELINE = {
    "model_index.json": b'{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet"]}',
    "unet/config.json": b"{}",
    "unet/model.safetensors": weights(2000),
}
TINY = {
    "generator.backend": "text_only",
    "generator.pipeline": "StableDiffusionPipeline",
    "generator.model": "tests/tiny",
    "generator.revision": HUB_COMMIT,
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Provide an empty cache, and a hub that has the model."""
    with serving({"tests/tiny": PIPELINE}) as address:
        connect(address, tmp_path / "hub", monkeypatch)
        yield tmp_path / "hub"


def faults() -> list[BadInput]:
    return list(find_missing(load(overrides=TINY)))


@pytest.mark.parametrize("name", PIPELINE)
@pytest.mark.parametrize("has_list", [True, False])
def test_a_part_of_a_model_is_refused_without_asking_the_hub(name: str, has_list: bool, hub: Path) -> None:
    if has_list:
        Source(model="tests/tiny", revision=HUB_COMMIT).download(("*",))
    else:
        cached(hub, "tests/tiny", PIPELINE)
    Hub.requests.clear()
    assert faults() == []
    (hub / "models--tests--tiny" / "snapshots" / HUB_COMMIT / name).unlink()
    (fault,) = faults()
    assert isinstance(fault, NotDownloaded) and "license: see its page" in fault.message
    assert ("kB" in fault.message) == (has_list and name.endswith("safetensors"))
    assert fault.remedy.startswith("Run `pleinair models pull pocket`")
    assert Hub.requests == []


def test_a_terminal_is_asked_before_a_download(
    hub: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for answer, downloads in (("n\n", False), ("y\n", True)):
        output, errors = Terminal(), Terminal()
        for name, stream in (("stdin", Terminal(answer)), ("stdout", output), ("stderr", errors)):
            monkeypatch.setattr(sys, name, stream)
        flags = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
        with pytest.raises(SystemExit):
            app(["draw", "two things", *flags])
        words = " ".join(errors.getvalue().split())
        assert "license mit: 2 files, 2 kB" in words and "Download 2 kB?" in words
        assert ("GET resolve unet/model.safetensors" in Hub.requests) == downloads
        assert (place / "home" / "runs.sqlite").exists() == downloads
        assert faults() == [] or not downloads


def test_every_local_generator_of_a_profile_has_a_process_that_can_be_killed() -> None:
    generators = [settings for name in profiles() if (settings := load(name)).generator.backend in BACKENDS]
    large = [settings for settings in generators if settings.generator.arguments.get("model")]
    assert [settings.profile for settings in large if not settings.worker.process] == []
    assert len(large) > 10


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
