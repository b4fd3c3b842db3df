"""Checks of a profile: whatever would stop a run is found, with a remedy, and nothing is generated."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import faulty_generator
from support import quick_engines as quick
from support import tiny_pipelines as tiny
from support.doctor_findings import faults, look
from typer.testing import CliRunner

from pleinair.app.api import draw
from pleinair.app.cli.main import app
from pleinair.app.engines import build_encoder, build_generator
from pleinair.app.settings import load
from pleinair.tools.retrieval.crossmodal.adaptor import AdaptorNet, Config, Shape, save
from pleinair.tools.types import BadInput
from pleinair.tools.worker.worker import Worker

TINY = {
    "generator.backend": "in_context", "generator.height": 32, "generator.width": 32,
    "generator.max_sequence_length": 24, "generator.text_encoder_out_layers": [0, 1],
}  # fmt: skip
WEIGHTS = Path("transformer") / "diffusion_pytorch_model.safetensors"
MENDED = "`pleinair models check"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.klein, tmp_path_factory.mktemp("klein"))


@pytest.fixture
def broken(model: Path, place: Path) -> Path:
    """Return the folder of a pipeline whose weights are cut off."""
    folder = Path(shutil.copytree(model, place / "broken"))
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    return folder


@pytest.fixture
def worker_settings(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Yield settings of a worker, which is closed afterwards."""
    monkeypatch.syspath_prepend(faulty_generator.install(place / "more"))
    settings = {"worker.process": True, "generator.backend": "faulty", "generator.log": str(place / "log")}
    yield settings
    worker = build_generator(load(overrides=settings))
    assert isinstance(worker, Worker)
    worker.close()


def test_a_sound_profile_has_no_faults_and_no_lines_about_absent_parts(place: Path) -> None:
    findings = look()
    assert faults(findings) == []
    assert {"second encoder", "retriever", "adaptor"}.isdisjoint(findings)
    log = place / "effects.log"
    assert not log.exists() or "picture" not in log.read_text("utf-8")


def test_a_worker_is_checked_in_its_process_and_closed(worker_settings: dict[str, Any], place: Path) -> None:
    worker = build_generator(load(overrides=worker_settings))
    assert isinstance(worker, Worker)
    for _ in range(2):
        finding = look(**worker_settings)["generator"]
        assert (finding.ok, finding.text) == (True, "faulty:1, in a process of its own")
        assert worker.pid is None
    assert not (place / "log").exists()  # nothing was drawn


def test_an_encoder_is_checked_in_its_process_and_closed(place: Path) -> None:
    settings = {"worker.encoder": True, "retrieval.method": "both", "retrieval.second.backend": "quick"}
    findings = look(**settings)
    texts = [findings[name].text for name in ("encoder", "second encoder")]
    assert texts == ["hashes, in a process of its own"] * 2
    worker = build_encoder(load(overrides=settings))
    assert isinstance(worker, Worker) and worker.pid is None


def test_a_worker_that_dies_at_the_start_is_reported(worker_settings: dict[str, Any]) -> None:
    finding = look(**worker_settings | {"generator.fault": "exit"})["generator"]
    assert not finding.ok and "died while starting: it ended by itself, with exit status 3" in finding.text


@pytest.mark.parametrize("process", [False, True])
def test_a_broken_model_is_one_clear_fault_of_doctor_and_draw(broken: Path, process: bool) -> None:
    settings = {**TINY, "generator.folder": str(broken), "worker.process": process}
    findings = look(**settings)
    says = f"{WEIGHTS.as_posix()}: "
    assert faults(findings) == ["model files"]
    assert says in findings["model files"].text and MENDED in findings["model files"].remedy
    for _ in range(3):  # never a loop, and the worker lives on
        outcome = draw("two things", graph="direct", overrides=settings).outcome
        assert (outcome.ending, outcome.best) == ("failed", None)
        assert says in outcome.reason and MENDED in outcome.reason and "\n" not in outcome.reason
    if isinstance(worker := build_generator(load(overrides=settings)), Worker):
        assert worker.pid is not None
        worker.close()


def test_a_folder_that_is_no_pipeline_is_reported_by_all(place: Path) -> None:
    (place / "empty").mkdir()
    for process in (False, True):
        settings = {**TINY, "generator.folder": str(place / "empty"), "worker.process": process}
        findings = look(**settings)
        assert faults(findings) == ["generator", "model files"]
        assert "it has no model_index.json" in findings["generator"].text
        with pytest.raises(BadInput, match="it has no model_index.json"):
            draw("two things", overrides=settings)


def test_a_model_of_the_hub_that_is_not_here_is_a_fault(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    settings = {"generator.backend": "in_context", "generator.model": "o/n", "generator.revision": "a" * 40}
    finding = look(**settings)["model files"]
    assert (finding.ok, finding.text) == (False, "generator o/n: not downloaded")
    assert "`pleinair models pull pocket`" in finding.remedy


def test_a_server_that_does_not_answer_is_found_without_paying(place: Path) -> None:
    settings = {"generator.backend": "openai_images", "generator.model": "m"}
    findings = look(**settings, **{"generator.base_url": "http://127.0.0.1:9/v1"})["generator"]
    assert (
        not findings.ok
        and "Nothing answers at" in findings.text
        and ".." not in findings.text.replace("...", "")
    )
    assert "that the server is running" in findings.remedy
    if not os.environ.get("OPENAI_API_KEY"):
        lacking = look(**settings)["generator"]
        assert lacking.remedy == "Set the environment variable OPENAI_API_KEY."


def test_the_second_encoder_is_checked_where_one_is_set(place: Path) -> None:
    both = {"retrieval.method": "both"}
    findings = look(**both, **{"retrieval.second": {"backend": "quick", "salt": "!"}})["second encoder"]
    assert (findings.ok, findings.text) == (True, "hashes!")
    lacking = look(**both)["second encoder"]
    assert not lacking.ok and "in the table retrieval.second" in lacking.text and lacking.remedy
    assert not look(**both, **{"retrieval.second": {"backend": "no such"}})["second encoder"].ok


def test_a_retriever_without_samples_is_for_any_generator(place: Path) -> None:
    out, library = place / "trained", str(place / "library")
    words = ["train", "retriever", "--library", library, "--out", str(out), "--epochs", "2"]
    assert CliRunner().invoke(app, [*words, "--loss", "normal"]).exit_code == 0
    found = look(**{"encoder.backend": "reflective", "encoder.folder": str(out)})["retriever"]
    assert found.text == "trained with the normal loss, for any generator"


def test_a_trained_retriever_must_be_this_generators(place: Path) -> None:
    out, library = place / "trained", str(place / "library")
    done = CliRunner().invoke(
        app,
        ["train", "retriever", "--library", library, "--out", str(out), "--epochs", "2"],
    )
    assert done.exit_code == 0, done.output
    settings: dict[str, Any] = {"encoder.backend": "reflective", "encoder.folder": str(out)}
    assert look(**settings)["retriever"].text == "trained with the reflective loss, for this generator"
    card = out / "retriever.json"
    card.write_text(card.read_text("utf-8").replace('"stripes"', '"dots"'), encoding="utf-8")
    settings["encoder.epoch"] = 2  # another table, so that it is opened anew
    other = look(**settings)["retriever"]
    assert not other.ok and "trained for sampler `dots`" in other.text and "train retriever" in other.remedy
    settings["encoder.any_generator"] = True
    assert look(**settings)["retriever"].text == "trained with the reflective loss, for any generator"


def test_an_adaptor_must_open_and_be_this_encoders(place: Path) -> None:
    shape = Shape.of(channels=64, dim=64)
    assert quick.unit(b"x").shape == (64,)
    for name in ("hashes", "another"):
        save(place / name, AdaptorNet(shape), Config(encoder=name, shape=shape))
    ours, others = (look(crossmodal__adaptor=str(place / name))["adaptor"] for name in ("hashes", "another"))
    assert ours.ok and ours.text.endswith("for this encoder")
    assert not others.ok and "is of encoder `another`, not of `hashes`" in others.text
    (place / "hashes" / "model.safetensors").write_bytes(b"x")
    torn = look(crossmodal__adaptor=str(place / "hashes"))["adaptor"]
    assert not torn.ok and "No adaptor in" in torn.text and "train adaptor" in torn.remedy


def test_a_fault_of_a_library_does_not_hide_the_next_finding(place: Path) -> None:
    (place / "bad").mkdir()
    (place / "bad" / "model_index.json").write_text(json.dumps([1]), encoding="utf-8")
    findings = look(**TINY, **{"generator.folder": str(place / "bad")})
    assert not findings["generator"].ok and findings["free disk"].text
