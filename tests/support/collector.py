"""OpenTelemetry collector on this machine, which decodes what it receives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector(ThreadingHTTPServer):
    """Server that keeps the spans, the headers and the paths of requests."""

    daemon_threads = True

    def __init__(self, *, is_silent: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.status = 200  # of every answer
        self.answering = threading.Event()  # a silent one answers once it is set
        if not is_silent:
            self.answering.set()

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        """The decoded requests."""
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    @property
    def batches(self) -> list[list[Any]]:
        """The spans of each request."""
        return [
            [
                span
                for resource in request.resource_spans
                for part in resource.scope_spans
                for span in part.spans
            ]
            for request in self.requests
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.paths.append(self.path)
        self.server.answering.wait()
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def collecting(*, is_silent: bool = False) -> Iterator[Collector]:
    """Run a collector for the block."""
    with Collector(is_silent=is_silent) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.answering.set()
            server.shutdown()
            thread.join()
