"""What a page of another origin can do to the server: nothing, in a real browser.

`control` repeats every attempt against a server that allows all, where each succeeds.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, Page
from support.browser import REBOUND, Server

PNG = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SECRET = "a barn owl in the snow"  # the prompt of the run that the page is after
READS = """address => Promise.race([
  fetch(address).then(answer => answer.ok && answer.text()).then(text => text || "", () => ""),
  new Promise(done => setTimeout(() => done("late"), 9000))])"""
IMAGE = """address => new Promise(done => {
  const image = new Image();
  image.onload = () => done("shown");
  image.onerror = () => done("");
  image.src = address})"""
SCRIPT = """address => new Promise(done => {
  const script = document.createElement("script");
  script.onload = () => done("run");
  script.onerror = () => done("");
  script.src = address;
  document.head.append(script)})"""
STREAM = """address => new Promise(done => {
  const stream = new EventSource(address);
  stream.onmessage = event => done(event.data);
  stream.onerror = () => { stream.close(); done("") }})"""
POST = """address => fetch(address, {method: "POST", mode: "no-cors", body: new URLSearchParams({a: "b"})})
  .then(() => "", () => "")"""
PREFLIGHT = """address => fetch(address,
  {method: "POST", headers: {"content-type": "application/json"}, body: "{}"})
  .then(answer => answer.text()).then(text => text, () => "")"""
FORM = """address => {
  const form = document.createElement("form");
  Object.assign(form, {method: "post", action: address});
  document.body.append(form);
  form.submit()}"""
FRAME = """address => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.onload = () => done("");
  frame.src = address;
  document.body.append(frame)})"""


class _Foreign(BaseHTTPRequestHandler):
    """Page of nobody's, and a server that allows everything."""

    posts: list[str] = []

    def do_GET(self) -> None:
        kinds = {"png": "image/png", "feed": "text/event-stream", "css": "text/javascript"}
        kind = next((kinds[end] for end in kinds if self.path.endswith(end)), "text/html")
        body = {"image/png": PNG, "text/event-stream": f"data: {SECRET}\n\n".encode(), "text/javascript": b""}
        self._send(kind, body.get(kind, SECRET.encode()))

    def do_POST(self) -> None:
        self.posts.append(self.path)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._send("text/html", SECRET.encode())

    def do_OPTIONS(self) -> None:
        self._send("text/plain", b"")

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("access-control-allow-origin", "*")
        self.send_header("access-control-allow-headers", "*")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def control() -> Iterator[str]:
    """Return the address of a server of another origin that allows everything."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Foreign) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["127.0.0.1", "localhost"], ids=["another port", "another site"])
def foreign(browser: Browser, control: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Open a page of another origin."""
    page = browser.new_page()
    page.goto(f"{control.replace('127.0.0.1', request.param)}/page")
    yield page
    page.close()


@pytest.fixture
def secret(server: Server) -> str:
    """Return a run that has ended, which the page wants to see or stop."""
    return server.ended(SECRET)


@pytest.mark.parametrize(
    ("script", "path", "wanted"),
    [
        (READS, "/runs", SECRET), (READS, "/runs/{run}", SECRET), (STREAM, "/runs/{run}/feed", SECRET),
        (IMAGE, "/runs/{run}/images/{image}.png", "shown"), (SCRIPT, "/static/page.css", "run"),
        (PREFLIGHT, "/runs/{run}/stop", SECRET),
    ],
)  # fmt: skip
def test_a_foreign_page_reads_nothing(
    foreign: Page, server: Server, control: str, secret: str, script: str, path: str, wanted: str
) -> None:
    path = path.format(run=secret, image=server.best(secret))
    assert foreign.evaluate(script, control + path) == wanted
    assert foreign.evaluate(script, server.address + path) == ""


def test_a_foreign_page_shows_no_page_in_a_frame(
    foreign: Page, server: Server, control: str, secret: str
) -> None:
    for address, is_shown in ((control, True), (server.address, False)):
        foreign.evaluate(FRAME, f"{address}/runs/{secret}")
        assert (SECRET in foreign.frames[-1].content()) == is_shown


@pytest.mark.parametrize("script", [POST, PREFLIGHT, FORM])
def test_a_foreign_page_changes_nothing(
    foreign: Page, server: Server, control: str, secret: str, script: str
) -> None:
    page, before = foreign.url, server.table()
    for address in (control, server.address):
        foreign.goto(page)
        foreign.evaluate(script, f"{address}/runs/{secret}/stop")
        foreign.wait_for_load_state("networkidle")
    assert f"/runs/{secret}/stop" in _Foreign.posts
    assert server.table() == before


def test_a_name_that_an_attacker_owns_is_not_served(browser: Browser, server: Server, secret: str) -> None:
    page = browser.new_page()
    answer = page.goto(f"http://{REBOUND}:{server.port}/runs/{secret}")
    assert answer is not None and answer.status == 421
    assert SECRET not in page.content()
    for method in ("GET", "POST"):
        script = f"address => fetch(address, {{method: '{method}'}}).then(answer => answer.status)"
        assert page.evaluate(script, f"/runs/{secret}/stop") == 421
    page.close()
