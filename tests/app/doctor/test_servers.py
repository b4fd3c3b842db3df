"""What `pleinair doctor` tells of a language model's server, by asking it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.doctor_findings import look
from support.fake_engines import ScriptedChat
from support.fault_server import error, playing, says
from support.model_servers import refused_address
from support.quirky_servers import SERVERS, Quirks, QuirkyService, serving
from typer.testing import CliRunner

from pleinair.app.api import home
from pleinair.app.cli.main import app
from pleinair.app.doctor.doctor import Finding, examine
from pleinair.tools.http.support import SUPPORT
from pleinair.tools.pocket.chat import PocketChat

PLAIN = Quirks("qwen3-vl:8b")


def scripted() -> ScriptedChat:
    def policy(schema: str, *_: Any) -> dict[str, Any] | str:
        return {"match": True, "why": "red"} if schema else "A red square."

    return ScriptedChat(policy=policy, schemas=[])


@contextmanager
def connected(quirks: Quirks, patch: pytest.MonkeyPatch, model: str = "") -> Iterator[dict[str, Any]]:
    """Serve a model, and yield the settings of its client."""
    patch.setenv("OPENAI_API_KEY", "sk-test")
    with serving(scripted(), quirks) as service:
        yield settings(service, model or quirks.model)


def settings(service: QuirkyService, model: str) -> dict[str, Any]:
    return {"mllm.backend": "openai", "mllm.model": model, "mllm.base_url": service.url}


def test_a_server_is_judged_by_one_small_question(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(PLAIN, monkeypatch) as overrides:
        finding = look(**overrides)["mllm"]
    assert finding.ok, finding
    assert "qwen3-vl:8b at http://127.0.0.1" in finding.text and "lists" not in finding.text
    assert "answers by JSON schemas, takes images; one question took" in finding.text


@pytest.mark.parametrize("name", ["azure", "transformers", "lm studio"])
def test_the_quirks_of_a_server_are_told(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(SERVERS[name], monkeypatch) as overrides:
        finding = look(**overrides)["mllm"]
    assert finding.ok, finding
    assert ("without" in finding.text) == (name != "azure"), finding.text
    assert "takes images" in finding.text


def test_near_names_of_a_model_are_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(PLAIN, monkeypatch, "qwen3-vl") as overrides:
        finding = look(**overrides)["mllm"]
    assert not finding.ok
    assert "which does not list it, but qwen3-vl:8b" in finding.text


def test_a_model_that_takes_no_images_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_images(request: dict[str, Any]) -> Any:
        return (400, {"error": "this model is not multimodal"}) if "image_url" in str(request) else None

    with connected(replace(PLAIN, refuses=[no_images]), monkeypatch) as overrides:
        finding = look(**overrides)["mllm"]
    assert not finding.ok and "takes no images" in finding.text and "mllm.model" in finding.remedy


def test_each_server_of_a_list_is_checked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with refused_address() as away, connected(PLAIN, monkeypatch) as overrides, playing(error(404)) as images:
        overrides["mllm.base_url"] = [overrides["mllm.base_url"], away]
        generator = {"backend": "openai_images", "model": "m", "base_url": [images.url, away]}
        findings = look(**overrides, generator=generator)
    assert not {"mllm", "generator"} & findings.keys()
    assert [findings[f"{kind} 1 of 2"].ok for kind in ("mllm", "generator")] == [True, True]
    for kind in ("mllm", "generator"):
        finding = findings[f"{kind} 2 of 2"]
        assert not finding.ok and finding.text.startswith(f"Nothing answers at {away}"), finding
        assert f"`{kind}.base_url` is right" in finding.remedy


@pytest.mark.parametrize("urls", [[], ["http://a:1", "http://a:1/v1"]])
def test_an_unusable_list_is_one_finding(urls: list[str], place: Path) -> None:
    findings = look(generator={"backend": "openai_images", "model": "m", "base_url": urls})
    assert not findings["generator"].ok and "generator.base_url" in findings["generator"].text


def test_what_each_server_of_a_list_takes_is_explored(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, strict = (replace(SERVERS[name], model="m") for name in ("vllm", "transformers"))
    with connected(plain, monkeypatch) as overrides, serving(scripted(), strict) as second:
        overrides["mllm.base_url"] = [overrides["mllm.base_url"], second.url]
        findings = examined(overrides, lambda text: None)
    assert "keeps to schemas" in findings["server 1 of 2"].text
    assert "needs the schema in the text too" in findings["server 2 of 2"].text


def test_without_a_server_nothing_is_asked(place: Path) -> None:
    finding = look(mllm__backend="pocket")["mllm"]
    assert finding.ok and finding.text.endswith("in this process: no server is asked")


def examined(overrides: dict[str, Any], report: Callable[[str], None]) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(None, overrides, mllm=True, report=report)}


@pytest.mark.parametrize(("name", "keeps"), [("vllm", True), ("transformers", False)])
def test_what_a_server_takes_is_tried_and_remembered(
    name: str, keeps: bool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = list[str]()
    with connected(SERVERS[name], monkeypatch) as overrides:
        finding = examined(overrides, lines.append)["server"]
        assert finding.ok, finding
        assert ("keeps to schemas" in finding.text) is keeps, finding.text
        url, model = str(overrides["mllm.base_url"]), str(overrides["mllm.model"])
        assert SUPPORT.get(url, model).keeps_schema is keeps
    assert {"loading libraries", "critic: 0 of 20 images", "server: trying a call of a tool"} <= set(lines)
    files = [path.read_text("utf-8") for path in (home().cache / "servers").iterdir()]
    assert [text for text in files if url in text and f'"keeps_schema": {str(keeps).lower()}' in text]


def test_progress_goes_to_the_other_stream(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(PLAIN, monkeypatch) as overrides:
        options = [f"--set={key}={value}" for key, value in overrides.items()]
        result = CliRunner().invoke(app, ["doctor", *options])
    assert "..  mllm openai" in result.stderr
    assert "ok  mllm: qwen3-vl:8b" in result.stdout and ".." not in result.stdout.split("mllm:")[0]


def test_the_pocket_model_explores_nothing(place: Path) -> None:
    assert not hasattr(PocketChat(), "explore")


def test_a_page_instead_of_a_list_is_no_fault(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with playing(error(405), says('{"match": true, "why": ""}')) as server:
        overrides = {"mllm.backend": "openai", "mllm.model": "m", "mllm.base_url": server.url}
        assert look(**overrides)["mllm"].ok
