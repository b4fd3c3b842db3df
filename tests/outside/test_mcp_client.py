"""MCP clients and servers as processes: who is killed loses nothing, and a second client has the run."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult
from support import quick_engines as quick
from support.detached_workers import detached_workers, detached_workers_ended
from support.mcp_clients import BEFORE, LATEST, images_of, links_of, text_of, values_of
from support.servers import free_port, serving

from pleinair.app.api import run_table

PROMPT = "first thing and second thing"
SOON = 300.0  # seconds that a test waits for what must come
SERVER = "from pleinair.app.cli.main import main; main()"
STARTER = """
import asyncio, sys, time
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

async def start(target):
    async with Client(target) as client:
        result = await client.call_tool("start", {"prompt": sys.argv[1], "seed": 1})
        print(result.structured_content["runs"][0], flush=True)
        await client.call_tool("wait", {"run": "last", "seconds": 300})

asyncio.run(start(%s))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create a home with quick backends, whose detached worker is ended with the test."""
    for name, value in quick.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PLEINAIR_GENERATOR__PAUSE", "0.3")
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    with detached_workers_ended():
        yield tmp_path


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def stdio(**environment: str) -> StdioServerParameters:
    """Return how a program starts the server: in any folder, with little of its environment."""
    env = {**os.environ, **environment}
    return StdioServerParameters(command=sys.executable, args=["-c", SERVER, "mcp"], env=env, cwd="/")


def shown(target: Any, run: str, mode: str = LATEST, seconds: float = SOON) -> CallToolResult:
    async def wait() -> CallToolResult:
        async with Client(target, mode=mode) as client:
            return await client.call_tool("wait", {"run": run, "seconds": seconds})

    return asyncio.run(wait())


@contextmanager
def starting(target: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a client that starts a run and waits for it, in a process group of its own; yield the run."""
    command = [sys.executable, "-c", STARTER % target, PROMPT]
    client = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=os.environ
    )
    assert client.stdout
    try:
        yield client, client.stdout.readline().strip()
    finally:
        if client.poll() is None:
            os.killpg(client.pid, signal.SIGKILL)
        client.wait()
        client.stdout.close()


def kill(client: subprocess.Popen[str], run: str) -> None:
    """Kill a client and its server while its run is at work."""
    until(lambda: run_table().get(run).status == "running")
    os.killpg(client.pid, signal.SIGKILL)
    client.wait()
    assert run_table().get(run).status == "running"


@pytest.mark.parametrize("mode", [LATEST, BEFORE])
def test_a_killed_client_over_stdio_loses_nothing(place: Path, mode: str) -> None:
    target = f"StdioServerParameters(command=sys.executable, args=['-c', {SERVER!r}, 'mcp'], env=dict(%s))"
    with starting(target % "__import__('os').environ") as (client, run):
        kill(client, run)
    result = shown(stdio(), run, mode)
    assert values_of(result)["status"] == "accepted"
    assert images_of(result) and f"Run {run}: accepted" in text_of(result)
    assert run_table().get(run).deaths == 0


def test_a_question_is_answered_by_another_client(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(name: str, **arguments: Any) -> CallToolResult:
        async with Client(stdio()) as client:  # a server of its own for every call
            return await client.call_tool(name, arguments)

    monkeypatch.setenv("PLEINAIR_GENERATOR__PAUSE", "0")
    run = values_of(asyncio.run(call("start", prompt=PROMPT, approve="references")))["runs"][0]
    question = asyncio.run(call("wait", run=run, seconds=SOON))
    assert values_of(question)["status"] == "waiting" and len(images_of(question)) > 1
    assert values_of(asyncio.run(call("answer", run=run))) == {"run": run}
    assert values_of(shown(stdio(), run))["status"] == "accepted"


def test_a_killed_client_over_http_loses_nothing(place: Path) -> None:
    with serving() as server:
        with starting(repr(f"{server.address}/mcp")) as (client, run):
            kill(client, run)
        result = shown(f"{server.address}/mcp", run, BEFORE)
        link = links_of(result)[-1].uri
        assert values_of(result)["status"] == "accepted"
        assert httpx.get(link, timeout=SOON).content.startswith(b"\x89PNG")


def test_a_killed_server_loses_nothing(place: Path) -> None:
    with serving() as server, starting(repr(f"{server.address}/mcp")) as (client, run):
        until(lambda: run_table().get(run).status == "running")
        server.kill()
    result = shown(stdio(), run)  # which has a detached worker for the run
    assert values_of(result)["status"] == "accepted"


def test_notices_come_by_time_while_a_run_is_slow(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices = list[tuple[float, str]]()

    async def notice(progress: float, total: float | None, message: str | None) -> None:
        notices.append((progress, message or ""))

    async def draw(target: Any, mode: str) -> str:
        async with Client(target, mode=mode) as client:
            arguments = {"prompt": PROMPT, "graph": "direct"}
            run = values_of(await client.call_tool("start", arguments))["runs"][0]
            await asyncio.to_thread(until, lambda: run_table().get(run).status == "running")
            result = await client.call_tool("wait", {"run": run, "seconds": 5}, progress_callback=notice)
            assert f'wait(run="{run}") again' in text_of(result)
            await client.call_tool("cancel", {"run": run})
            return str(run)

    monkeypatch.setenv("PLEINAIR_GENERATOR__PAUSE", "8")
    with serving() as server:
        for target, mode in ((f"{server.address}/mcp", LATEST), (f"{server.address}/mcp", BEFORE)):
            asyncio.run(draw(target, mode))
            assert len(notices) >= 3
            assert any("Generating" in message for _, message in notices)
            notices.clear()


def test_standard_output_has_the_protocol_only(place: Path) -> None:
    """A request of each generation, typed by hand; what is broken gets an answer, and ends nothing."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    messages: list[Any] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        "this is no JSON",
        {"jsonrpc": "2.0", "id": 3, "method": "no/such"},
        {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "show", "arguments": {}}},
        {
            "jsonrpc": "2.0",
            "id": 5,
            "method": "tools/call",
            "params": {"name": "search_library", "arguments": {"query": "picture"}},
        },
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, "mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdin and process.stdout and process.stderr
    answers: dict[Any, Any] = {}
    with process:
        for message in messages:
            process.stdin.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
            process.stdin.flush()
        while 5 not in answers:
            answer = json.loads(process.stdout.readline())
            answers[answer.get("id")] = answer
        process.stdin.close()
        assert process.wait(SOON) == 0
        assert not process.stdout.read()
        assert "Traceback" not in process.stderr.read()
    assert answers[1]["result"]["protocolVersion"] == "2025-06-18"
    assert len(answers[2]["result"]["tools"]) == 8
    assert "error" in answers[3]
    assert answers[4]["result"]["isError"] and "run: required" in answers[4]["result"]["content"][0]["text"]


def test_a_server_without_pages_is_guarded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, token = free_port(), "secret-of-the-test"
    address = f"http://127.0.0.1:{port}/mcp"
    command = [sys.executable, "-c", SERVER, "mcp", "--http", "--port", str(port)]
    environment = {**os.environ, "PLEINAIR_SERVE_TOKEN": token}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd="/")
    assert process.stdout
    assert address in process.stdout.readline()
    key = {"authorization": f"Bearer {token}", "accept": "application/json, text/event-stream"}
    try:
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for status, headers in (
            (401, {}),
            (401, {"authorization": "Bearer wrong"}),
            (403, {**key, "origin": "http://evil.example"}),
            (421, {**key, "host": "evil.example"}),
            (200, key),
        ):
            response = httpx.post(address, json=request, headers=headers, timeout=SOON)
            assert response.status_code == status, headers
        assert httpx.get(address, headers=key, timeout=SOON).status_code == 405

        async def draw(mode: str) -> CallToolResult:
            async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=SOON) as http:
                target = streamable_http_client(address, http_client=http)
                async with Client(target, mode=mode) as client:
                    arguments = {"prompt": PROMPT, "idempotency_key": "once", "seed": 1}
                    run = values_of(await client.call_tool("start", arguments))["runs"][0]
                    return await client.call_tool("wait", {"run": run, "seconds": SOON})

        first, second = (asyncio.run(draw(mode)) for mode in (LATEST, BEFORE))
        assert values_of(first) == values_of(second)
        assert values_of(first)["status"] == "accepted" and len(detached_workers()) == 1
    finally:
        process.terminate()
        process.stdout.close()
        assert process.wait(SOON) == 0
    assert detached_workers(), "the worker goes on without the server"


def test_help_loads_nothing_of_mcp() -> None:
    probe = "import sys, pleinair.app.cli.main; print('mcp' in sys.modules, 'mcp_types' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout.split() == ["False", "False"]
