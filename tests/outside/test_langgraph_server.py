"""LangGraph's own development server with `langgraph.json`, driven by LangGraph's SDK, in the pocket profile.

The server runs in an environment of its own with the packages of `langgraph.lock`, before ours on its path.
A hook in it refuses and logs every connection to another machine.
"""

from __future__ import annotations

import io
import os
import signal
import site
import subprocess
import time
import venv
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx2 as httpx
import pytest
from PIL import Image
from support.servers import free_port
from support.source_tree import ROOT

sdk = pytest.importorskip("langgraph_sdk")

PROMPT = {"prompt": "a hoopoe in the snow", "seed": 1}
ASKS = {"settings": {"approve": "references"}, "image_url": "link"}
STARTS = 120.0  # seconds within which the server answers, on a busy machine
HOOK = """
import os, sys
def refuse(event, arguments):
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    host = host[0] if isinstance(host, tuple) else host if event == "socket.getaddrinfo" else None
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", b"localhost"):
        with open(os.environ["CONNECTIONS"], "a") as file:
            print(event, host, file=file)
        raise OSError(f"refused: {host}")
sys.addaudithook(refuse)
"""


def install(folder: Path) -> Path:
    """Create the server's environment, with our packages after its own; return its command."""
    venv.create(folder, with_pip=True)
    lock = Path(__file__).with_name("langgraph.lock")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-qq"]
    subprocess.run([*pip, "install", "--requirement", str(lock)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = "; ".join(f"site.addsitedir({path!r})" for path in site.getsitepackages())
    (packages / "zz_pleinair.pth").write_text(f"import site; {ours}\n", encoding="utf-8")
    (packages / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    return folder / "bin" / "langgraph"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("langgraph")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Run `langgraph dev` on a copy of the configuration, in which it stores its threads."""
    command, port = install(folder / "venv"), free_port()
    project = folder / "project"
    project.mkdir()
    for path in ("app", "langgraph.json"):
        (project / path).symlink_to(ROOT / path)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("LANG")}
    variables |= {
        "PLEINAIR_HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "CONNECTIONS": str(folder / "connections.log"),
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGGRAPH_NO_VERSION_CHECK": "1",
        "LANGSMITH_TRACING": "false",
        "OMP_NUM_THREADS": "1",
    }
    arguments = ["dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [str(command), *arguments],
            cwd=project,
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await_answer(f"http://127.0.0.1:{port}/ok", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(300)


def _await_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTS
    while process.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(log.read_text("utf-8", errors="replace")[-4000:])


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with sdk.get_sync_client(url=address) as client:
        yield client


def picture(data: bytes) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.format, image.size


def test_events_are_streamed_and_the_image_is_fetched_by_its_link(client: Any, address: str) -> None:
    thread = client.threads.create()
    parts = list(
        client.runs.stream(
            thread["thread_id"],
            "pleinair",
            input=PROMPT,
            context={"image_url": "link", "settings": {"budget.attempts": 2}},
            stream_mode=["updates", "custom", "values"],
        )
    )
    assert not [part for part in parts if part.event == "error"]
    steps = {step for part in parts if part.event == "updates" for step in part.data}
    assert {"draft", "decompose", "critique", "finish"} <= steps
    assert any(part.event == "custom" and part.data.get("total") for part in parts)  # diffusion steps
    values = parts[-1].data
    digest = values["outcome"]["best"]["picture"]["sha256"]
    assert values["image_url"] == f"/images/{digest}.png"
    response = httpx.get(address + values["image_url"], timeout=300)
    assert response.headers["content-type"] == "image/png"
    assert picture(response.content) == ("PNG", (96, 96))
    assert httpx.get(f"{address}/images/{'0' * 64}.png", timeout=300).status_code == 404
    assert httpx.get(f"{address}/images/..%2f..%2fruns.sqlite.png", timeout=300).status_code == 404
    state = client.threads.get_state(thread["thread_id"])
    assert state["values"]["outcome"]["best"]["picture"]["sha256"] == digest
    history = client.threads.get_history(thread["thread_id"], limit=50)
    assert len(history) > 5
    assert history[0]["checkpoint"]["checkpoint_id"] == state["checkpoint"]["checkpoint_id"]


@pytest.mark.parametrize("form", ["data", "file"])
def test_the_image_is_sent_as_bytes_or_as_a_file_of_this_machine(client: Any, form: str) -> None:
    values = client.runs.wait(None, "direct", input=PROMPT, context={"image_url": form})
    url = values["image_url"]
    assert url.startswith(f"{form}:")
    data = b64decode(url.partition(",")[2]) if form == "data" else urlopen(url).read()
    assert picture(data) == ("PNG", (96, 96))


def test_an_interrupt_is_answered_by_a_command(client: Any, address: str) -> None:
    thread = client.threads.create()["thread_id"]
    client.runs.wait(thread, "pleinair", input=PROMPT, context=ASKS)
    state = client.threads.get_state(thread)
    (question,) = [interrupt for task in state["tasks"] for interrupt in task["interrupts"]]
    assert question["value"]["references"]
    assert client.threads.get(thread)["status"] == "interrupted"
    unfit = client.runs.wait(thread, "pleinair", command={"resume": {"vetos": []}}, context=ASKS)
    assert "vetos" in str(unfit["__interrupt__"][0]["value"]["fault"])
    values = client.runs.wait(thread, "pleinair", command={"resume": True}, context=ASKS)
    assert values["outcome"]["ending"] in ("accepted", "stopped")
    assert picture(httpx.get(address + values["image_url"], timeout=300).content) == ("PNG", (96, 96))
    assert client.threads.get(thread)["status"] == "idle"


def test_a_run_is_cancelled(client: Any) -> None:
    thread = client.threads.create()["thread_id"]
    context = {"settings": {"generator.num_inference_steps": 400}}
    run = client.runs.create(thread, "direct", input=PROMPT, context=context, stream_mode=["custom"])
    for part in client.runs.join_stream(thread, run["run_id"], stream_mode=["custom"]):
        if part.event == "custom":  # a diffusion step
            break
    client.runs.cancel(thread, run["run_id"], wait=True)
    assert client.runs.get(thread, run["run_id"])["status"] == "interrupted"
    assert not client.threads.get_state(thread)["values"].get("outcome")


def test_a_mistake_has_our_message(client: Any) -> None:
    with pytest.raises(Exception, match=r"budgett.*Did you mean `budget`"):
        client.runs.wait(None, "pleinair", input=PROMPT, context={"settings": {"budgett.attempts": 1}})


def test_nothing_was_sent_to_another_machine(client: Any, folder: Path) -> None:
    assert client.assistants.search(limit=20)
    log = folder / "connections.log"
    assert not log.exists(), log.read_text("utf-8")
