"""Servers of one model on this machine: each lists its models, and answers calls by what a test sets."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from email import message_from_bytes
from typing import Any

from PIL import Image
from support.fault_server import IDLE, Act, FaultServer, Request, hang, reply
from support.quick_engines import ALONE, SIZE, colour

Respond = Callable[[Request], Act]


def listing(*names: str) -> Act:
    """List models."""
    return reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


class ModelServer(FaultServer):
    """Server whose `calls` are counted apart from the requests for its list of models."""

    def __init__(self, respond: Respond, lists: Act | None = None, port: int = 0) -> None:
        self.respond, self.lists = respond, lists or listing("m")
        self.calls: list[Request] = []
        self.answered: list[Request] = []
        self.checks = 0
        super().__init__([hang], port)

    def _play(self, connection: socket.socket, act: Act) -> None:
        with connection, suppress(OSError):
            connection.settimeout(IDLE)
            if (request := self._read(connection)) is None:
                return
            if request.path.endswith("/models"):
                self.checks += 1
                return self.lists(self, connection)
            self.calls.append(request)
            self.respond(request)(self, connection)


@contextmanager
def model_servers(*responses: Respond) -> Iterator[list[ModelServer]]:
    """Start a server for each response; yield them in the order of their URLs, as a list has them."""
    with ExitStack() as stack:
        servers = []
        for respond in responses:
            servers.append(server := ModelServer(respond))
            stack.callback(server.close)
        order = sorted(servers, key=lambda server: server.url)
        for server, respond in zip(order, responses, strict=True):
            server.respond = respond
        yield order


def restarted(url: str, respond: Respond) -> ModelServer:
    """Start a server at the address of one that was closed, as soon as nobody else uses its port."""
    port, end = int(url.split(":")[2].removesuffix("/v1")), time.monotonic() + 30
    while True:
        try:
            return ModelServer(respond, port=port)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


@contextmanager
def refused_address() -> Iterator[str]:
    """Yield the address of a port where nothing listens, and nothing else can either."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def always(act: Act) -> Respond:
    """Respond to every call by one act."""
    return lambda request: act


def in_turn(*responses: Respond) -> Respond:
    """Respond in one way after the other, in the last again and again."""
    rest, lock = list(responses), threading.Lock()

    def respond(request: Request) -> Act:
        with lock:
            chosen = rest.pop(0) if len(rest) > 1 else rest[0]
        return chosen(request)

    return respond


def first_asked(ill: Respond, others: Respond) -> Respond:
    """Respond in one way at the server that is asked first of all, and in another at the others."""
    hosts, lock = list[str](), threading.Lock()

    def respond(request: Request) -> Act:
        with lock:
            hosts.append(request.headers["Host"])
        return (ill if request.headers["Host"] == hosts[0] else others)(request)

    return respond


def after(seconds: float, respond: Respond) -> Respond:
    """Respond later; a server that is closed meanwhile closes the connection without an answer."""

    def later(request: Request) -> Act:
        def act(server: FaultServer, connection: socket.socket) -> None:
            if not server.wait(seconds):
                respond(request)(server, connection)

        return act

    return later


def painted(request: Request) -> Act:
    """Send an image as the quick generator paints it, by the seed and the references of a request."""
    fields = fields_of(request)
    image = Image.new("RGB", (SIZE, SIZE), colour(str(fields["seed"][0])))
    references = fields.get("image[]", [])
    image.paste(references[0].getpixel((0, 0)) if references else ALONE, (0, 0, SIZE // 2, SIZE // 2))
    file = io.BytesIO()
    image.save(file, "PNG")
    sent = reply(200, {"created": 1, "data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}]})

    def act(server: FaultServer, connection: socket.socket) -> None:
        sent(server, connection)
        assert isinstance(server, ModelServer)
        server.answered.append(request)

    return act


def fields_of(request: Request) -> dict[str, Sequence[Any]]:
    """Return the fields of an images request, each a list; files as images."""
    if request.headers.get_content_type() == "application/json":
        return {name: [value] for name, value in request.json.items()}
    kind = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    fields: dict[str, list[Any]] = {}
    for part in message_from_bytes(kind + request.body).walk():
        if name := part.get_param("name", header="Content-Disposition"):
            data = part.get_payload(decode=True)
            assert isinstance(data, bytes)
            fields.setdefault(str(name), []).append(
                Image.open(io.BytesIO(data)) if part.get_filename() else data.decode()
            )
    return dict(fields)
