"""One run through four interfaces: MCP starts it, the page approves, Python forks, a command exports."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from PIL import Image
from support.detached_workers import detached_workers_ended
from support.html_form import Forms
from support.mcp_clients import values_of
from support.servers import serving

from pleinair.app import streams
from pleinair.app.runs.events import Ended
from pleinair.app.trace.fork import fork

PROMPT = "a hoopoe in the snow"
COMMAND = [sys.executable, "-m", "pleinair.app.cli.main"]


async def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """Return the structured result of a tool of an MCP server in a process of its own."""
    server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "mcp"], env=dict(os.environ))
    async with Client(server) as client:
        result = await client.call_tool(tool, arguments)
    return values_of(result)


def approve_on_the_page(address: str, run: str) -> None:
    """Send the form of the run's page as a browser does, with what it proposes."""
    headers = {"accept": "text/html", "origin": address}
    with httpx.Client(base_url=address, headers=headers, timeout=300) as browser:
        page = browser.get(f"/runs/{run}").raise_for_status().text
        form = next(form for form in Forms(page).forms if form.action.endswith("/answer"))
        files = {name: ("", b"") for name in form.files}
        assert browser.post(form.action, data=form.fields, files=files).status_code == 303


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with detached_workers_ended():
        yield tmp_path


def test_one_run_through_four_interfaces(place: Path) -> None:
    started = asyncio.run(call("start", prompt=PROMPT, seed=1, approve="references"))
    (run,) = started["runs"]
    asyncio.run(call("wait", run=run, seconds=120))
    view = asyncio.run(call("show", run=run))
    assert (view["run"], view["status"]) == (run, "waiting") and view["question"]["retrievals"]

    with serving() as server:
        approve_on_the_page(server.address, run)
        last = list(streams.follow(run, seconds=120))[-1]
    assert isinstance(last.data, Ended) and last.data.outcome.ending == "accepted"

    branch = fork(run, "retrieve:1", overrides={"approve": "", "retrieval.method": "lexical"})
    assert branch.run_id != run and branch.picture and branch.picture.exists()

    for name in ("run.json", "run.html", "run.png"):
        subprocess.run([*COMMAND, "trace", "export", run, name], check=True, env=os.environ)
    exported = json.loads((place / "run.json").read_text("utf-8"))
    assert exported["run"] == run
    assert run in (place / "run.html").read_text("utf-8")
    Image.open(place / "run.png").verify()
    shown = subprocess.run(
        [*COMMAND, "runs", "show", branch.run_id, "--json"], check=True, env=os.environ, capture_output=True
    )
    assert json.loads(shown.stdout)["parent"]["run"] == run
    listed = asyncio.run(call("list_runs"))
    assert {branch.run_id, run} <= {row["run"] for row in listed["runs"]}
