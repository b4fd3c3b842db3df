"""`budget.seconds` ends a run that waits for anything: 55 kinds of slowness, all at the same time.

Each run must end as stopped by `seconds` within 5 s more, imports left out. SECONDS=5 sets the budget and
runs all kinds; without it every third one runs, with 2 s.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image
from support import fault_server as faults
from support import faulty_generator, slow_engines
from support import quick_engines as quick
from support.fault_server import Act, FaultServer, completion, error, playing, reply
from support.openai_server import proven

from pleinair.app.api import finish, home, submit
from pleinair.app.engines import build_generator, device_lock, import_libraries
from pleinair.app.libraries import index_folder
from pleinair.app.runs.events import StepFinished, payloads, read
from pleinair.app.settings import load
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Attempt, Outcome
from pleinair.tools.worker.worker import Worker

log = logging.getLogger(__name__)
pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("SECONDS", "2"))
MORE = 5.0  # seconds after the budget
PROMPT = "first thing and second thing"
CONCEPTS = '{"concepts": [{"name": "first", "caption": "first"}, {"name": "second", "caption": "second"}]}'
LARGE = (6000, 5000)  # pixels of an image that takes a third of a second to decode


@dataclass
class Kind:
    """Way to be slow.

    Args:
        settings: overrides of the quick engines; callables get the server's address, or the test's folder.
        acts: of a server.
        graph: that runs.
    """

    settings: Mapping[str, Any]
    acts: tuple[Act, ...] = ()
    graph: str = "pleinair"


def says_concepts(server: FaultServer, connection: socket.socket) -> None:
    """Answer a decomposition."""
    reply(200, completion(CONCEPTS))(server, connection)


def sends_picture(server: FaultServer, connection: socket.socket) -> None:
    """Answer with an image that shows no reference, by its corner."""
    image = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    image.putpixel((0, 0), quick.ALONE)
    text = base64.b64encode(encode_png(image)).decode()
    reply(200, {"created": 0, "data": [{"b64_json": text}]})(server, connection)


def unread(server: FaultServer, connection: socket.socket) -> None:
    """Send a large body in small parts, so that it never ends and every read brings something."""
    connection.sendall(faults.head(200, 3 * 2**20))
    while not server.wait(0.1):
        connection.sendall(b" " * 4096)


def keeps_alive(server: FaultServer, connection: socket.socket) -> None:
    """Send comments of an event stream, as proxies do that wait for a model."""
    connection.sendall(faults.head(200, None))
    while not server.wait(0.1):
        connection.sendall(b": keep-alive\n\n")


ACTS: dict[str, Act] = {
    "silent": faults.hang,
    "drips its head": faults.drip(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "drips its body": faults.drip_body,
    "drips empty lines": faults.drip(b"\r\n"),
    "never ends": unread,
    "keeps the connection alive": keeps_alive,
    "loads its model": error(503, retry_after="1"),
    "asks for ten minutes": error(429, retry_after="600"),
    "fails again and again": error(500),
}
FIRST = "chat drips its body at the decomposition"  # of a model that was never called before
CHAT = {"mllm.backend": "openai", "mllm.model": "m", "mllm.tries": 1000}
IMAGES = {"generator.backend": "openai_images", "generator.model": "m", "generator.tries": 1000}
IMAGES |= {"generator.height": 64, "generator.width": 64}
OWN_PROCESS = {"worker.process": True, "generator.backend": "faulty"}
GRAPHS = ("direct", "imagerag", "crossmodal")


def chat_kinds() -> Iterator[tuple[str, Kind]]:
    for name, act in ACTS.items():
        yield f"chat {name} at the decomposition", Kind(CHAT, (act,))
        yield f"chat {name} at the critique", Kind(CHAT, (says_concepts, act))
    for graph in ("react", "imagerag", "crossmodal"):
        yield f"chat silent in {graph}", Kind(CHAT, (faults.hang,), graph)
    yield "chat without a connection", Kind(CHAT, ())
    yield "chat model of another library", Kind({"mllm.backend": "slow", "mllm.at": "call"})


def image_kinds() -> Iterator[tuple[str, Kind]]:
    for name, act in ACTS.items():
        yield f"image server {name}", Kind(IMAGES, (act,))
    yield "image server silent at an edit", Kind(IMAGES, (sends_picture, faults.hang))


KINDS: dict[str, Kind] = {
    **dict(chat_kinds()),
    **dict(image_kinds()),
    "generator loads": Kind({"generator.backend": "slow", "generator.at": "load"}),
    "another run loads the generator": Kind({"generator.backend": "slow", "generator.at": "load"}),
    "generator takes slow steps": Kind({"generator.pause": 3.0}),
    "generator hangs in a step": Kind({"generator.backend": "slow", "generator.at": "step"}),
    **{
        f"generator hangs in {graph}": Kind(
            {"generator.backend": "slow", "generator.at": "step"}, graph=graph
        )
        for graph in GRAPHS
    },
    "generator hangs with references": Kind({"generator.backend": "slow", "generator.at": "edit"}),
    "chat model loads": Kind({"mllm.backend": "slow", "mllm.at": "load"}),
    "encoder loads": Kind({"encoder.backend": "slow", "encoder.at": "load"}),
    "encoder hangs at images": Kind({"encoder.backend": "slow", "encoder.at": "images"}),
    "encoder hangs at texts": Kind({"encoder.backend": "slow", "encoder.at": "texts"}),
    **{
        f"encoder blocks in its process at {at}": Kind(
            {"encoder.backend": "slow", "encoder.at": at, "encoder.name": "apart", "worker.encoder": True}
        )
        for at in ("texts", "load", "images")
    },
    "library opens": Kind({"retrieval.method": "slow"}),
    "library is decoded": Kind({"library.folder": "large", "encoder.salt": "large"}),
    "another run indexes": Kind({"encoder.salt": "locked"}),
}
IN_A_PROCESS = {  # one after the other, since only one may have the device
    "process starts": Kind(OWN_PROCESS | {"generator.fault": "asleep"}, graph="direct"),
    "process loads": Kind(OWN_PROCESS, graph="direct"),
    "process hangs in a step": Kind(OWN_PROCESS, graph="direct"),
    "another worker has the device": Kind(OWN_PROCESS, graph="direct"),
}
ALL = KINDS | IN_A_PROCESS
RUN = [name for number, name in enumerate(ALL) if number % 3 == 0 or "SECONDS" in os.environ]
PROMPTS = {"process loads": "loads for ever", "process hangs in a step": "hangs"}


@dataclass
class Ending:
    """How a run ended, and after how many seconds."""

    outcome: Outcome
    seconds: float
    attempts: list[Attempt]  # that were stored before


@contextmanager
def served(kind: Kind) -> Iterator[str]:
    """Yield the address of the kind's server."""
    if kind.settings.get("mllm.backend") == "openai" and not kind.acts:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as clients:
            for _ in range(2):  # they fill the queue of connections, which nobody accepts
                client = clients.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        return
    with playing(*(kind.acts or (faults.hang,))) as server:
        yield server.url


def run(name: str, kind: Kind) -> Ending:
    """Run a kind of slowness to its end."""
    with served(kind) as url:
        if name != FIRST:
            proven(url, "m")
        settings = {"budget.seconds": SECONDS, **kind.settings}
        for table, backend in (("mllm", "openai"), ("generator", "openai_images")):
            if settings.get(f"{table}.backend") == backend:
                settings[f"{table}.base_url"] = url
        row = submit(PROMPTS.get(name, PROMPT), graph=kind.graph, seed=7, overrides=settings)
        started = time.monotonic()
        result = finish(row)
        seconds = time.monotonic() - started
        finished = payloads(read(home().events(row.id)), StepFinished)
        return Ending(result.outcome, seconds, [attempt for step in finished for attempt in step.attempts])


def write_large_images(folder: Path) -> None:
    """Write a library that takes half a minute to decode; its files differ in their last bytes."""
    folder.mkdir()
    Image.new("RGB", LARGE, (9, 99, 9)).save(folder / "0.png", compress_level=1)
    data = (folder / "0.png").read_bytes()
    for number in range(1, 100):
        (folder / f"{number}.png").write_bytes(data + bytes([number]))


def one_after_the_other(endings: Mapping[str, Future[Ending]]) -> None:
    for name, kind in ((name, IN_A_PROCESS[name]) for name in endings if name in IN_A_PROCESS):
        busy = name == "another worker has the device"
        if busy:
            device_lock("auto").lock.acquire()
        try:
            endings[name].set_result(run(name, kind))
        except BaseException as error:  # noqa: B036  # raised by the test of this kind
            endings[name].set_exception(error)
        if busy:
            device_lock("auto").lock.release()
        worker = build_generator(load(overrides=dict(kind.settings)))
        assert isinstance(worker, Worker)
        worker.close()


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Ending]]:
    """Run all kinds at the same time, and return the ending of each by its name."""
    folder = tmp_path_factory.mktemp("seconds")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name in [name for name in os.environ if name.startswith("PLEINAIR_")]:
            patch.delenv(name)
        for name, value in quick.install(folder).items():
            patch.setenv(name, value)
        patch.setenv("PLEINAIR_BUDGET__ATTEMPTS", "2")
        patch.chdir(folder)
        for plugin in (
            folder / "plugin",
            slow_engines.install(folder / "more"),
            faulty_generator.install(folder / "other"),
        ):
            patch.syspath_prepend(plugin)
        slow_engines.released.clear()
        write_large_images(folder / "large")
        index = index_folder(load(overrides={"encoder.salt": "locked"}), home())
        index.mkdir(parents=True)
        stack.enter_context(FileLock(index / "lock"))
        import_libraries(load(overrides={}), "pleinair")
        futures: dict[str, Future[Ending]] = {name: Future() for name in RUN}
        worker = threading.Thread(target=one_after_the_other, args=(futures,), daemon=True)
        pool = stack.enter_context(ThreadPoolExecutor(len(KINDS)))
        for name in RUN:
            if name in KINDS:
                futures[name] = pool.submit(run, name, KINDS[name])
        worker.start()
        yield lambda name: futures[name].result(300)
        slow_engines.released.set()
        worker.join()


@pytest.mark.parametrize("name", RUN)
def test_a_slow_part_ends_the_run_in_time(name: str, endings: Callable[[str], Ending]) -> None:
    ending = endings(name)
    outcome = ending.outcome
    log.info("%4.1f s: %s", ending.seconds, name)  # shown by --log-cli-level=INFO
    assert (outcome.ending, outcome.limit) == ("stopped", "seconds"), outcome.reason
    assert ending.seconds < SECONDS + MORE
    assert not ending.attempts or outcome.best is not None


@pytest.mark.parametrize("kind", ["chat silent at the decomposition", "chat silent at the critique"])
def test_a_run_that_is_stopped_keeps_its_image(kind: str, place: Path) -> None:
    ending = run(kind, replace(ALL[kind], settings={**ALL[kind].settings, "budget.seconds": 2.0}))
    assert (ending.outcome.limit, ending.outcome.best is not None) == ("seconds", True)


BLOCKED = ("encoder loads", "encoder hangs at texts", "generator hangs in a step", "generator loads")


def test_what_blocks_does_not_keep_a_program_from_exiting(place: Path) -> None:
    slow_engines.install(place / "more")
    settings = [{**ALL[kind].settings, "budget.seconds": 1.0} for kind in BLOCKED]
    support = Path(slow_engines.__file__).parent
    paths = [place / "plugin", place / "more" / "plugin", support.parent]
    result = subprocess.run(
        [sys.executable, support / "blocked_program.py", *map(json.dumps, settings)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    ended = time.time()
    *endings, over, exits = map(json.loads, result.stdout.splitlines())
    assert (result.returncode, endings) == (0, [["stopped", "seconds"]] * len(BLOCKED)), result.stderr
    assert (over[0], exits[0]) == ("over", "exits")
    assert ended - over[1] < 60.0  # they block for ten minutes


def test_a_run_that_is_in_time_is_not_changed(place: Path) -> None:
    free, limited = (
        finish(submit(PROMPT, seed=7, overrides=overrides)).outcome
        for overrides in ({}, {"budget.seconds": 600.0})
    )
    assert free.ending == limited.ending == "accepted"
    assert free.best and limited.best and free.best.picture == limited.best.picture
