"""Measure how images are shared out among several image servers that wait instead of computing.

Each server of this process makes one image at a time and others wait in its line, as on one GPU. So what is
measured is the choice of servers and its own cost, and neither a network nor a model.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from typing import Any

from PIL import Image

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.openai_images import OpenAIImages
from pleinair.tools.types import GenerateRequest

SIDE = 16  # pixels
SLOWER = 4.0  # times, the slow server of the unequal ones


class _ImageServer(ThreadingHTTPServer):
    """Server of one image at a time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seconds, self.line, self.images = seconds, threading.Lock(), 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: _ImageServer

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        with self.server.line:
            time.sleep(self.server.seconds)
            self.server.images += 1
        self._send({"created": 1, "data": [{"b64_json": _IMAGE}]})

    def _send(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _encoded() -> str:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


_IMAGE = _encoded()


@contextmanager
def _serving(seconds: Sequence[float]) -> Iterator[list[_ImageServer]]:
    with ExitStack() as stack:
        servers = [stack.enter_context(_ImageServer(each)) for each in seconds]
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(server.shutdown)
        yield servers


def _generator(urls: Sequence[str]) -> OpenAIImages:
    return OpenAIImages("m", base_url=tuple(urls), slots=0, height=SIDE, width=SIDE, price_per_picture=0.0)


def _make(generator: OpenAIImages, seed: int) -> None:
    request = GenerateRequest(
        prompt="a finch", seed=seed, width=SIDE, height=SIDE, num_inference_steps=1, guidance_scale=1.0
    )
    generator.generate(request, (), no_callback)


def throughput(
    seconds: Sequence[float], clients: int, images: int, processes: bool
) -> tuple[float, list[int]]:
    """Return images a second of servers that take `seconds` for one, and how many each of them made.

    The clients are threads of this process, or processes of one thread each; each has made an image before.
    """
    kind: Callable[[int], Executor] = ThreadPoolExecutor
    if processes:
        kind = partial(ProcessPoolExecutor, mp_context=get_context("spawn"))
    with _serving(seconds) as servers, kind(clients) as pool:
        urls = [server.url for server in servers]
        list(pool.map(_make_slowly, [urls] * clients, range(clients)))
        before = [server.images for server in servers]
        started = time.perf_counter()
        list(pool.map(_make_one, [urls] * images, range(images)))
        elapsed = time.perf_counter() - started
        return images / elapsed, [server.images - old for server, old in zip(servers, before, strict=True)]


def _make_one(urls: Sequence[str], seed: int) -> None:
    _make(_generator(urls), seed)


def _make_slowly(urls: Sequence[str], seed: int) -> None:
    """Make an image, and wait so that every client of a pool makes one."""
    _make_one(urls, seed)
    time.sleep(2)


def first_images(count: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of an image right after a server died, and of the next ones, of 3 servers."""
    after_death, usual = [], []
    for _ in range(count):
        with _serving([0.0] * 3) as servers:
            generator = _generator([server.url for server in servers])
            for seed in range(6):
                _make(generator, seed)
            servers[0].shutdown()
            servers[0].server_close()
            times = [
                _timed(generator, seed) for seed in range(9)
            ]  # each of three turns meets the dead one once
            after_death.append(max(times[:3]))
            usual += times[3:]
    return after_death, usual


def _timed(generator: OpenAIImages, seed: int) -> float:
    started = time.perf_counter()
    _make(generator, seed)
    return 1000 * (time.perf_counter() - started)


def add(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("server-lists", help="images of several image servers that wait")
    parser.add_argument("--seconds", type=float, default=0.5, help="of an image (0.5)")
    parser.add_argument("--clients", type=int, default=12, help="threads that request images (12)")
    parser.add_argument("--processes", action="store_true", help="clients are processes, not threads")
    parser.add_argument("--images", type=int, default=60, help="of each measurement (60)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each kind (3)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    os.environ.setdefault("OPENAI_API_KEY", "none")
    second = options.seconds
    kinds = [[second], [second] * 2, [second] * 3, [second, second, second * SLOWER]]
    for _ in range(options.repeat):
        for seconds in kinds:
            rate, shares = throughput(seconds, options.clients, options.images, options.processes)
            limit, of = sum(1 / each for each in seconds), ", ".join(f"{each:g}" for each in seconds)
            sys.stdout.write(
                f"{len(seconds)} servers of {of} s: {rate:.2f} images a second, "
                f"{100 * rate / limit:.1f} % of {limit:.2f}; shares {shares}\n"
            )
    after_death, usual = first_images(10 * options.repeat)
    sys.stdout.write(
        f"an image that met a dead server: {statistics.median(after_death):.1f} ms, others "
        f"{statistics.median(usual):.1f} ms (medians, n = {len(after_death)} and {len(usual)})\n"
    )
