"""A hub right here: it serves what huggingface_hub asks for, and a cache laid out as that library does."""

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
ASKED = re.compile(r"(?:api/models/)?([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)/?(.*))?")
Files = Mapping[str, bytes]


def weights(count: int = 4) -> bytes:
    """Write a safetensors file of one tensor."""
    header = json.dumps({"x": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(count)


def digest(data: bytes, large: bool) -> str:
    """Name a file as the hub does."""
    if large:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def cached(cache: Path, model: str, files: dict[str, bytes]) -> Path:
    """Lay files out as the hub's cache does, and give the snapshot's folder."""
    place = cache / f"models--{model.replace('/', '--')}"
    snapshot = place / "snapshots" / COMMIT
    for name, data in files.items():
        blob = place / "blobs" / digest(data, name.endswith(".safetensors"))
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    return snapshot


class Hub(BaseHTTPRequestHandler):
    """Serve models; `asked` keeps what was asked for, "HEAD resolve config.json" say."""

    models: Mapping[str, Files]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        known = ASKED.fullmatch(urlsplit(self.path).path.strip("/"))
        model, kind, revision, name = known.groups(default="") if known else ("",) * 4
        type(self).asked.append(f"{self.command} {kind or 'model'} {name}".strip())
        served = {"": self.card, "revision": self.card, "tree": self.tree, "resolve": self.file}
        well = model in self.models and revision in ("", "main", COMMIT)
        status, data = (200, served[kind](model, name)) if well else (404, b"{}")
        self.send_response(status)
        self.send_header("ETag", f'"{digest(data, name.endswith(".safetensors"))}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def card(self, model: str, name: str) -> bytes:
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
        """Say nothing."""


@contextmanager
def serving(models: Mapping[str, Files]) -> Iterator[str]:
    """Serve models on this machine and give the hub's address."""
    Hub.asked, Hub.models = [], models
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reach(address: str, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the client in this process ask a hub that is served here, with a cache of its own."""
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
