"""Runs in Phoenix, installed in an environment of its own: what its API and its page show."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from support.servers import free_port

from pleinair.app.api import answer, draw, finish, home, run_table
from pleinair.app.otel.export import export_run, finish_sending, run_spans
from pleinair.app.otel.span import trace_id
from pleinair.app.runs.calls import read_calls

LOCK = Path(__file__).with_name("phoenix.lock")
STARTS = 300.0  # seconds within which the server answers, on a busy machine
PROMPT = "a barn owl and a hoopoe"
KEY = "sk-secret-of-the-environment"


@dataclass
class Phoenix:
    """Server, as its own client would ask it."""

    address: str

    def spans(self, run_id: str, count: int = 0) -> list[dict[str, Any]]:
        """Return the spans of a run, once there are so many; they are stored after they were sent."""
        trace, end = f"{trace_id(run_id):032x}", time.monotonic() + STARTS
        while True:
            reply = httpx.get(f"{self.address}/v1/projects/default/spans?limit=1000", timeout=60)
            known = reply.json()["data"] if reply.status_code == 200 else []
            shown = [span for span in known if span["context"]["trace_id"] == trace]
            if len(shown) >= count or time.monotonic() > end:
                return shown
            time.sleep(0.2)


@pytest.fixture(scope="session")
def environment() -> Path:
    """Install Phoenix once beside the packages that run the tests, and return its folder of programs."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = Path(sys.prefix) / f"phoenix-{digest}"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", "--no-deps", "--requirement", str(LOCK)], check=True)
        (folder / "installed").touch()
    return folder / "bin"


@pytest.fixture(scope="module")
def phoenix(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    folder, port = tmp_path_factory.mktemp("phoenix"), free_port()
    settings = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(environment / "phoenix"), "serve"],
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | settings,
            stdout=log,
            stderr=log,
        )
    server, end = Phoenix(f"http://127.0.0.1:{port}"), time.monotonic() + STARTS
    try:
        while process.poll() is None and time.monotonic() < end:
            try:
                httpx.get(f"{server.address}/v1/projects", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.5)
        else:
            raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
        yield server
    finally:
        process.terminate()
        process.wait(300)


class Files(SimpleHTTPRequestHandler):
    """Handler of a plain web server for images."""

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Set a home of real pocket runs, and an address of its images."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "home" / "runs").mkdir(parents=True)
    handler = partial(Files, directory=str(folder / "home" / "runs"))
    with pytest.MonkeyPatch.context() as patch, ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        for name, value in {
            "PLEINAIR_HOME": str(folder / "home"),
            "PLEINAIR_PATHS__OUT": str(folder / "out"),
            "PLEINAIR_TRACING__IMAGE_URL": f"http://127.0.0.1:{server.server_port}/{{file}}",
            "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={KEY}",
            "OPENAI_API_KEY": KEY,
        }.items():
            patch.setenv(name, value)
        yield folder
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def run_id(phoenix: Phoenix, place: Path) -> str:
    """Draw with an approval between, each part sent when it had come to its end, and then all of it again."""
    options = {"tracing.otlp": phoenix.address, "approve": "references"}
    run = draw(PROMPT, seed=2, overrides=options)
    finish_sending(STARTS)
    row = run_table().get(run.run_id)
    steps = phoenix.spans(run.run_id, len(run_spans(row, home())))
    assert steps and "AGENT" not in {span["span_kind"] for span in steps}
    assert finish(answer(run.run_id)).outcome.ending == "accepted"
    finish_sending(STARTS)
    assert export_run(run_table().get(run.run_id), home()) > len(steps)
    return run.run_id


def test_a_run_is_one_tree_however_often_it_is_sent(phoenix: Phoenix, run_id: str) -> None:
    expected = run_spans(run_table().get(run_id), home())
    shown = phoenix.spans(run_id, len(expected))
    ids = {span["context"]["span_id"] for span in shown}
    assert len(shown) == len(ids) == len(expected)
    (root,) = [span for span in shown if span["parent_id"] is None]
    assert (root["name"], root["span_kind"], root["status_code"]) == ("invoke_agent pleinair", "AGENT", "OK")
    assert root["attributes"]["input.value"] == PROMPT
    assert all(span["parent_id"] in ids for span in shown if span is not root)
    kinds = {span["span_kind"] for span in shown}
    assert kinds == {"AGENT", "CHAIN", "LLM", "RETRIEVER", "EVALUATOR"}


def test_calls_have_their_tokens_and_evaluations_their_results(phoenix: Phoenix, run_id: str) -> None:
    shown = phoenix.spans(run_id)
    calls = {
        span["attributes"]["pleinair.call"]: span["attributes"] for span in shown if "chat" in span["name"]
    }
    for call in read_calls(home().files(run_id)):
        assert calls[call.number]["llm.token_count.total"] == call.usage.tokens > 0
        assert calls[call.number]["gen_ai.operation.name"] == "chat"
    evaluation = next(span for span in shown if span["span_kind"] == "EVALUATOR")
    assert {event["name"] for event in evaluation["events"]} == {"gen_ai.evaluation.result"}
    retrieval = next(span for span in shown if span["span_kind"] == "RETRIEVER")
    assert "hoopoe" in retrieval["attributes"]["retrieval.documents.0.document.content"]


def test_a_run_is_small_and_has_addresses_of_its_images_only(phoenix: Phoenix, run_id: str) -> None:
    text = json.dumps(phoenix.spans(run_id))
    assert len(text) < 200_000
    assert "base64," not in text and "iVBORw0KGgo" not in text and KEY not in text
    values = [value for span in phoenix.spans(run_id) for value in span["attributes"].items()]
    urls = {value for name, value in values if name.endswith("image.url")}
    assert len(urls) >= 3  # draft, attempt, reference
    for url in urls:
        reply = httpx.get(url, timeout=300)
        assert reply.status_code == 200
        assert hashlib.sha256(reply.content).hexdigest() == Path(url).stem


def test_a_driven_run_has_tools(phoenix: Phoenix, place: Path) -> None:
    run = draw("a hoopoe in the snow", seed=1, graph="react")
    count = export_run(run_table().get(run.run_id), home(), phoenix.address)
    shown = phoenix.spans(run.run_id, count)
    tools = {span["attributes"]["tool.name"] for span in shown if span["span_kind"] == "TOOL"}
    assert {"decompose", "generate", "critique", "retrieve"} <= tools


def test_the_page_shows_the_images(phoenix: Phoenix, run_id: str) -> None:
    from playwright.sync_api import sync_playwright

    images = [span for span in phoenix.spans(run_id) if span["name"].startswith("generate_content")]
    image = min(images, key=lambda span: str(span["start_time"]))  # the first one of the page
    project = httpx.get(f"{phoenix.address}/v1/projects/default", timeout=300).json()["data"]["id"]
    address = f"{phoenix.address}/projects/{project}/traces/{trace_id(run_id):032x}"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(STARTS * 1000)
        page.goto(address, wait_until="domcontentloaded")  # its fonts are elsewhere
        page.get_by_text(image["name"][:24]).first.click()
        shown = page.locator(f"img[src='{image['attributes']['output.value']}']").first
        shown.wait_for()
        page.wait_for_function("image => image.complete", arg=shown.element_handle())
        assert shown.evaluate("image => image.naturalWidth") == 96
        browser.close()
