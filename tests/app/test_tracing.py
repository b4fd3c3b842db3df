"""Traces for LangSmith: images stay here, and a dead server costs nothing."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from langsmith import Client, tracing_context
from support.fake_engines import decomposition, make_context, rows
from typer.testing import CliRunner

from pleinair.app.api import draw
from pleinair.app.cli.main import app
from pleinair.graphs.pleinair import graph
from pleinair.tools.tracing import redacted

KEY = "lsv2_pt_0123456789abcdef_secret"


class Recorder(ThreadingHTTPServer):
    """Server that records what LangSmith's client posts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []

    @property
    def data(self) -> bytes:
        return b"".join(self.bodies)


class Handler(BaseHTTPRequestHandler):
    """Handler that accepts everything."""

    server: Recorder

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(202)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def langsmith(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Recorder]]:
    monkeypatch.setenv("LANGSMITH_DISABLE_RUN_COMPRESSION", "true")
    with Recorder() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        client = Client(api_url=f"http://127.0.0.1:{server.server_port}", api_key=KEY)
        with tracing_context(enabled=True, client=client, project_name="other"):
            yield client, server
        client.cleanup()
        server.shutdown()


def answer(schema: str, payload: dict[str, Any], _: int) -> dict[str, Any]:
    return decomposition("finch") if schema == "Decomposition" else rows(payload, lambda _: False)


@pytest.mark.parametrize("images", [False, True])
def test_images_are_sent_only_if_asked_for(
    tmp_path: Path, langsmith: tuple[Client, Recorder], images: bool
) -> None:
    client, server = langsmith
    run = make_context(tmp_path, answer, trace_images=images, image_url="data")
    output = graph.invoke({"prompt": "a finch", "budget": {"attempts": 2}}, context=run)
    client.flush()
    assert len(output["attempts"]) == 2
    assert b"a finch" in server.data and b'"critique"' in server.data
    assert (b"iVBORw0KGgo" in server.data) is images
    assert (b"not sent: tracing.images" in server.data) is not images


def test_a_graph_in_a_traced_program_keeps_its_place_in_the_trace(
    tmp_path: Path, langsmith: tuple[Client, Recorder]
) -> None:
    from langchain_core.runnables import RunnableLambda

    client, server = langsmith
    run = make_context(tmp_path, answer)
    outer = RunnableLambda(lambda _: graph.invoke({"prompt": "a finch"}, context=run)["outcome"]["ending"])
    assert outer.invoke("x") == "stopped"
    client.flush()
    assert b"iVBORw0KGgo" not in server.data and b"not sent: tracing.images" in server.data
    assert b'"RunnableLambda"' in server.data and b"parent_run_id" in server.data


def test_a_run_of_the_command_line_sends_no_images(place: Path, langsmith: tuple[Client, Recorder]) -> None:
    client, server = langsmith
    draw("two things", seed=1)
    client.flush()
    assert b"two things" in server.data
    assert b"iVBORw0KGgo" not in server.data


@pytest.mark.parametrize("images", [False, True])
def test_captions_send_images_only_if_asked_for(
    place: Path, langsmith: tuple[Client, Recorder], images: bool
) -> None:
    client, server = langsmith
    (place / "library" / "metadata.jsonl").unlink()
    setting = f"tracing.images={str(images).lower()}"
    result = CliRunner().invoke(app, ["index", "--caption", "--yes", "--set", setting])
    client.flush()
    assert result.exit_code == 0, result.output
    assert b"a square with a speck" in server.data
    assert (b"iVBORw0KGgo" in server.data) is images


@pytest.mark.slow
def test_a_server_that_never_answers_does_not_keep_the_command_from_ending(place: Path) -> None:
    """LangSmith's own threads would wait for it for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        langsmith = {"LANGSMITH_TRACING": "true", "LANGSMITH_ENDPOINT": endpoint, "LANGSMITH_API_KEY": KEY}
        command = [sys.executable, "-c", "from pleinair.app.cli.main import main; main()"]
        run = subprocess.run(
            [*command, "draw", "two things", "--graph", "direct"],
            env=os.environ | langsmith,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
    assert list((place / "out").glob("*.png"))
    assert "127.0.0.1" not in run.stderr and "secret" not in run.stderr


def test_a_dead_server_costs_no_time_and_shows_no_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recorder() as server:
        address = f"http://127.0.0.1:{server.server_port}"
    client = Client(api_url=address, api_key=KEY)
    run = make_context(tmp_path, answer)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING), tracing_context(enabled=True, client=client):
        assert graph.invoke({"prompt": "a finch"}, context=replace(run))["image_url"]
        seconds = time.monotonic() - started
        client.flush(timeout=3)  # its own retries go on for 20 seconds
    assert seconds < 15
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("langsmith")]
    assert not [text for text in messages if "127.0.0.1" in text or "secret" in text or "http" in text]
    assert len(messages) <= 1


def test_short_texts_and_prose_stay() -> None:
    values = {"a": ["x" * 255, "a finch"], "b": (b"abc", 1.5), "c": "see " + "A" * 300 + "=="}
    assert redacted(values) == {
        "a": ["x" * 255, "a finch"],
        "b": ["[3 bytes, not sent: tracing.images]", 1.5],
        "c": "see [226 bytes, not sent: tracing.images]",
    }
