"""Local model hub for huggingface_hub, and a cache in that library's layout."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "c0ffee" + "0" * 34
ROUTE = re.compile(r"(?:api/models/)?([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)/?(.*))?")
Files = Mapping[str, bytes]


def weights(count: int = 4) -> bytes:
    """Write a safetensors file of one tensor."""
    header = json.dumps({"x": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(count)


def digest(data: bytes, large: bool) -> str:
    """Return the hub's name for a file's content."""
    if large:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def cached(cache: Path, model: str, files: dict[str, bytes]) -> Path:
    """Write files in the layout of the hub's cache, and return the snapshot's folder."""
    repository = cache / f"models--{model.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for name, data in files.items():
        blob = repository / "blobs" / digest(data, name.endswith(".safetensors"))
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    return snapshot


class Hub(BaseHTTPRequestHandler):
    """HTTP handler that serves models; `requests` records them, for example "HEAD resolve config.json"."""

    models: Mapping[str, Files]
    requests: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        route = ROUTE.fullmatch(urlsplit(self.path).path.strip("/"))
        model, kind, revision, name = route.groups(default="") if route else ("",) * 4
        type(self).requests.append(f"{self.command} {kind or 'model'} {name}".strip())
        answers = {"": self.page, "revision": self.page, "tree": self.tree, "resolve": self.file}
        exists = model in self.models and revision in ("", "main", COMMIT)
        status, data = (200, answers[kind](model, name)) if exists else (404, b"{}")
        self.send_response(status)
        self.send_header("ETag", f'"{digest(data, name.endswith(".safetensors"))}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def page(self, model: str, name: str) -> bytes:
        facts = {"id": model, "sha": COMMIT, "cardData": {"license": "mit"}, "siblings": []}
        return json.dumps(facts).encode()

    def tree(self, model: str, name: str) -> bytes:
        return json.dumps([self.entry(name, data) for name, data in self.models[model].items()]).encode()

    def entry(self, name: str, data: bytes) -> dict[str, Any]:
        row: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": digest(data, False)}
        if name.endswith(".safetensors"):
            row["lfs"] = {"oid": digest(data, True), "size": len(data), "pointerSize": 130}
        return row

    def file(self, model: str, name: str) -> bytes:
        return self.models[model][name]

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def serving(models: Mapping[str, Files]) -> Iterator[str]:
    """Serve models on this machine and yield the hub's address."""
    Hub.requests, Hub.models = [], models
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def connect(address: str, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Connect the client of this process to a local hub, with a cache of its own."""
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
