"""Missing things are reported once, with the remedy that helps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.doctor_findings import faults, look

ENCODER = {
    "encoder.backend": "open_clip",
    "encoder.model": "ViT-B-32",
    "encoder.revision": "laion2b_s34b_b79k",
}
CLIP = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@pytest.fixture
def no_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Set an empty cache of the hub, online; the result sets it offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return monkeypatch


def test_a_missing_encoder_is_reported_once_and_not_as_a_retriever(
    no_cache: pytest.MonkeyPatch,
) -> None:
    no_cache.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    findings = look(**ENCODER, **{"crossmodal.adaptor": "pocket/adaptor"})
    assert faults(findings) == ["encoder", "model files"]
    assert not {"retriever", "adaptor"} & set(findings)
    assert findings["encoder"].text == "open_clip:ViT-B-32 is not here"
    assert findings["encoder"].remedy == "See the model files below."
    assert f"encoder {CLIP}: not downloaded" in findings["model files"].text
    remedy = findings["model files"].remedy
    assert "`pleinair models pull pocket`" in remedy and "once HF_HUB_OFFLINE is unset" in remedy


def test_an_encoder_is_not_downloaded_for_a_check(no_cache: pytest.MonkeyPatch) -> None:
    def fetched(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    no_cache.setattr("huggingface_hub.snapshot_download", fetched)
    no_cache.setattr("huggingface_hub.hf_hub_download", fetched)
    findings = look(**ENCODER, **{"crossmodal.adaptor": "pocket/adaptor"})
    assert faults(findings) == ["encoder", "model files"]
    assert findings["model files"].text == f"encoder {CLIP}: not downloaded"
    assert "`pleinair models pull pocket`" in findings["model files"].remedy


def test_the_remedy_of_an_error_comes_before_that_of_the_check(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    findings = look(**{"mllm.backend": "openai", "mllm.model": "m"})["mllm"]
    assert (findings.ok, findings.text) == (False, "https://api.openai.com/v1 needs a key")
    assert findings.remedy == "Set the environment variable OPENAI_API_KEY."
    other = look(**{"mllm.backend": "quick", "mllm.pause": "x"})["mllm"]
    assert other.remedy == "Check the table [mllm] of the profile."


def test_a_model_without_a_commit_is_reported_in_full_once(no_cache: pytest.MonkeyPatch) -> None:
    findings = look(**{"generator.backend": "in_context", "generator.model": "o/n"})
    assert "generator.revision = '': wanted a commit of o/n" in findings["generator"].text
    assert "`pleinair models pull PROFILE`" in findings["generator"].remedy
    assert findings["model files"].text == "generator o/n: no commit is set"


def test_the_hubs_own_log_is_silent_unless_the_user_wants_it() -> None:
    code = (
        "from pleinair.app.cli.terminal import quiet; quiet(); from huggingface_hub.utils import logging;"
        "logging.get_logger('huggingface_hub.utils._http').warning('Retrying in 8s [Retry 5/5].')"
    )
    plain = {key: value for key, value in os.environ.items() if key != "HF_HUB_VERBOSITY"}
    for more, logged in (({}, False), ({"HF_HUB_VERBOSITY": "info"}, True)):
        process = subprocess.run(
            [sys.executable, "-c", code], env=plain | more, capture_output=True, check=True
        )
        assert (b"Retrying" in process.stderr) is logged
