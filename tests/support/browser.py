"""The server in a process of its own and Chromium in front of it, for tests of the pages."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    Response,
    ViewportSize,
)  # fmt: skip

from pleinair.app.chat.threads import Threads
from pleinair.app.paths import Paths
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Runs
from pleinair.app.runs.tables import QUEUED, RUNNING

CHROMIUM = "/usr/bin/chromium"
REBOUND = "rebound.example"  # a name that Chromium resolves to this machine
NOWHERE = f"MAP {REBOUND} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
FLAGS = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
START = 300.0  # seconds that a server may take until it answers, or a run to its end
PATIENCE = 180_000  # ms until a page's action or a wait for what it shows fails, on a busy machine
LONG = "60"  # steps of an image: long enough to do something meanwhile
TABLET, PHONE, DESK = 800, 390, 1400  # widths in CSS pixels
AXE = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
CRITIC = """() => {
  document.addEventListener("securitypolicyviolation", event => console.error(
    `policy: ${event.violatedDirective} ${event.blockedURI}`));
}"""


def launch(playwright: Playwright) -> Browser:
    """Start Debian's Chromium, which can reach this machine only."""
    return playwright.chromium.launch(
        executable_path=CHROMIUM, chromium_sandbox=False, args=[*FLAGS, f"--host-resolver-rules={NOWHERE}"]
    )


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Server:
    """`pleinair serve` with a home of its own; a context manager that stops it and its workers.

    Args:
        home: PLEINAIR_HOME.
        options: of the command.
        environment: further variables, such as settings.
    """

    command = "serve"

    def __init__(self, home: Path, *options: str, **environment: str) -> None:
        self.home, self.port = home, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._options, self._groups = options, list[int]()
        self._environment = os.environ | {"PLEINAIR_HOME": str(home), "OMP_NUM_THREADS": "1"} | environment
        self._chats: dict[str, str] = {}  # and runs, which tests share
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it on the same port as before and wait until it answers."""
        command = [sys.executable, "-m", "pleinair.app.cli.main", self.command, "--port", str(self.port)]
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options], env=self._environment, cwd=self.home, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._groups.append(self._process.pid)
        for _ in range(int(START / 0.1)):
            if self._process.poll() is not None:
                raise RuntimeError(f"The server ended: {self.log()}")
            if self._answers():
                return
            try:
                self._process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        raise RuntimeError(f"The server does not answer: {self.log()}")

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.address}/static/page.css", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End the server at once, as a crash does; its workers notice that by themselves."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop the server as Ctrl-C does, then whatever is left of it and of those killed before."""
        assert self._process
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(START)
            except subprocess.TimeoutExpired:
                self.kill()
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def enqueue(self, prompt: str, **fields: object) -> str:
        """Request an image and return the run's id; `fields` are those of `POST /runs`."""
        body = json.dumps({"prompt": prompt, "seed": 1} | fields).encode()
        headers = {"content-type": "application/json", "accept": "application/json"}
        request = urllib.request.Request(f"{self.address}/runs", body, headers)
        with urllib.request.urlopen(request, timeout=START) as answer:
            return str(json.load(answer)["run"])

    def chat(self, prompt: str, **fields: str) -> str:
        """Return the address of a chat with one message that has ended or waits; repeated calls share it.

        `fields` are those of its composer.
        """
        key = json.dumps([prompt, fields])
        if key not in self._chats:
            typed = {"prompt": prompt, "seed": "1"} | fields
            body = urllib.parse.urlencode({f"f-{name}": value for name, value in typed.items()}).encode()
            with urllib.request.urlopen(f"{self.address}/threads/new/send", body, START) as answer:
                self._chats[key] = urlsplit(answer.url).path
        address = self._chats[key]
        self._await(Threads(Paths(self.home)).get(address.rpartition("/")[2]).turns[0].runs[0])
        return address

    def ended(self, prompt: str) -> str:
        """Return a run of a prompt that has ended; repeated calls share it."""
        return self._shared(prompt, "")

    def waiting(self, prompt: str) -> str:
        """Return a run of a prompt that waits for an approval; repeated calls share it."""
        return self._shared(prompt, "references")

    def _shared(self, prompt: str, approve: str) -> str:
        key = json.dumps([prompt, approve])
        if key not in self._chats:
            self._chats[key] = self.enqueue(prompt, approve=approve)
        self._await(self._chats[key])
        return self._chats[key]

    def _await(self, run_id: str) -> None:
        with Runs(Paths(self.home).table) as runs:
            for _ in range(int(START / 0.05)):
                if runs.get(run_id).status not in (QUEUED, RUNNING):
                    return
                time.sleep(0.05)
        raise RuntimeError(f"The run does not get there: {self.log()}")

    def best(self, run_id: str) -> str:
        """Return the SHA-256 of the best image of a run."""
        with Runs(Paths(self.home).table) as runs:
            outcome = runs.get(run_id).outcome
        assert outcome and outcome.best
        return outcome.best.picture.sha256

    def table(self) -> list[Run]:
        """Return all runs, newest first."""
        with Runs(Paths(self.home).table) as runs:
            return runs.newest(1000)

    def log(self) -> str:
        """Return what it has printed."""
        return (self.home / "serve.log").read_text("utf-8", "replace")


class JudgingServer(Server):
    """`pleinair judge`, with the sources and the folder of the study as options."""

    command = "judge"


class Visitor:
    """A page of Chromium that remembers everything that must not happen.

    `faults` are console errors and warnings, script errors, violations of the policy, requests that fail,
    responses of 400 and more that no test expects, and requests to other machines.
    """

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.context, self.address = context, address
        self.faults: list[str] = []
        self._statuses: set[int] = set()
        self._is_out = False
        context.add_init_script(f"({CRITIC})()")
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        self.page.on("request", self._on_request)
        self.page.on("requestfailed", self._on_failure)
        self.page.on("response", self._on_response)

    def visit(self, path: str) -> Page:
        """Open a page of the server."""
        self.page.goto(self.address + path)
        return self.page

    @contextmanager
    def expecting(self, *statuses: int) -> Iterator[None]:
        """Accept these statuses in the block."""
        self._statuses |= set(statuses)
        yield
        self.page.wait_for_load_state()
        self._statuses -= set(statuses)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Accept that the server is away in the block."""
        self._is_out = True
        yield
        self._is_out = False

    def violations(self) -> list[str]:
        """Return what axe-core finds on the page as it is."""
        results = Axe().run(self.page, options={"runOnly": AXE, "resultTypes": ["violations"]})
        return [
            f"{found['id']}: {node['target']} {node['failureSummary']}"
            for found in results.response["violations"]
            for node in found["nodes"]
        ]

    def resize(self, width: int) -> None:
        """Set the width of the window."""
        self.page.set_viewport_size(ViewportSize(width=width, height=900))

    def sideways(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        root = "document.documentElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    def _on_console(self, message: ConsoleMessage) -> None:
        is_status = message.text.startswith("Failed to load resource: the server responded with a status of")
        if message.type in ("error", "warning") and not is_status and not self._is_out:
            self.faults.append(f"console {message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.faults.append(f"left the machine: {request.url}")

    def _on_failure(self, request: Request) -> None:
        is_left = request.failure == "net::ERR_ABORTED"  # the page was left while it loaded
        if not is_left and not self._is_out:
            self.faults.append(f"failed: {request.method} {request.url} {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self._statuses and not self._is_out:
            self.faults.append(f"status {response.status}: {response.request.method} {response.url}")


NewServer = Callable[..., Server]  # starts one, with the arguments of `Server` after the home
NewVisitor = Callable[..., Visitor]  # of a server, with options of Chromium's context


def new_visitor(browser: Browser, address: str, **options: Any) -> Visitor:
    """Return a visitor with an empty profile, 1400 pixels wide unless `options` differ."""
    defaults = {"viewport": ViewportSize(width=DESK, height=900), "reduced_motion": "no-preference"}
    return Visitor(browser.new_context(**defaults | options), address)


HOOPOE = "a hoopoe in the snow"
TWO = "a barn owl and a hoopoe"
UNKNOWN = "a photograph of a steam locomotive"  # of which the pocket library has nothing


def _run(server: Server) -> str:
    return f"/runs/{server.ended(TWO)}"


def _comparison(server: Server) -> str:
    return f"/compare?left={server.ended(HOOPOE)}&right={server.ended(TWO)}"


def _at(path: str) -> Callable[[Server], str]:
    return lambda server: path


PAGES: dict[str, Callable[[Server], str]] = {
    "chat-empty": _at("/threads/new"),
    "chat": lambda server: server.chat(TWO),
    "chat-approval": lambda server: server.chat(HOOPOE, approve="references"),
    "chats": _at("/threads"),
    "run": _run,
    "run-approval": lambda server: f"/runs/{server.waiting(TWO)}",
    "call": lambda server: f"{_run(server)}/calls/1",
    "fork": lambda server: f"{_run(server)}/fork",
    "compare": _comparison,
    "runs": _at("/runs"),
    "runs-none": _at("/runs?search=nothingatall"),
    "library": _at("/library"),
    "search": _at("/library/search?words=a+wren"),
    "search-nothing": _at(f"/library/search?words={UNKNOWN.replace(' ', '+')}"),
    "index": _at("/library/index"),
    "duplicates": _at("/library/duplicates"),
    "gaps": _at("/library/gaps"),
    "missing": _at("/no/such/page"),
    "runs-fault": _at("/runs?since=2026-99-99"),
    "gaps-fault": _at("/library/gaps?since=0000-00-00"),
}  # by the name of its screenshot
STATUSES = {"missing": 404, "runs-fault": 400, "gaps-fault": 400}  # of pages that are not 200


def show(visitor: Visitor, server: Server, name: str) -> Page:
    """Open one of the pages, or a form that comes back with a fault."""
    with visitor.expecting(STATUSES.get(name, 200), *([400, 422] if name in FAULTS else [])):
        if name in FAULTS:
            FAULTS[name](server, visitor)
        else:
            visitor.visit(PAGES[name](server))
        visitor.page.wait_for_load_state()
    return visitor.page


def _refused(page: Page, button: str, **fields: str) -> None:
    """Type unusable values on a page and press a button."""
    for name, text in fields.items():
        page.locator(f"[name={name.replace('_', '-')}]").first.fill(text)
    with page.expect_navigation():
        page.get_by_role("button", name=button).first.click()


def _chat_fault(server: Server, visitor: Visitor) -> None:
    page = visitor.visit("/threads/new")
    page.get_by_text("Options", exact=False).first.click()
    _refused(page, "Send", f_prompt="a wren", f_width="wide")


def _chat_prompt(server: Server, visitor: Visitor) -> None:
    _refused(visitor.visit(server.chat(TWO)), "Send", f_prompt="/show")


def _fork_fault(server: Server, visitor: Visitor) -> None:
    _refused(visitor.visit(PAGES["fork"](server)), "Run the fork", seed="x")


def _approval_fault(server: Server, visitor: Visitor) -> None:
    _refused(visitor.visit(PAGES["run-approval"](server)), "Continue", name_0="")


def _index_fault(server: Server, visitor: Visitor) -> None:
    _refused(visitor.visit("/library/index"), "Index", folder="/no/such/folder")


FAULTS: dict[str, Callable[[Server, Visitor], None]] = {
    "chat-fault": _chat_fault,
    "chat-prompt": _chat_prompt,
    "fork-fault": _fork_fault,
    "approval-fault": _approval_fault,
    "index-fault": _index_fault,
}  # forms that come back with a fault
