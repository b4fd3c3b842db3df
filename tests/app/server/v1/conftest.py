"""Fixtures of the images interface: a client, and a worker in a thread."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pleinair.app.api import home, run_table
from pleinair.app.runs.worker import work
from pleinair.app.server.app import create
from pleinair.app.server.site import Options


@pytest.fixture
def client(place: Path) -> Iterator[TestClient]:
    """Return a client of a server with room for three runs, and without a worker."""
    app = create(Options(workers=0, queue=3), home())
    with TestClient(app, "http://127.0.0.1:8800", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def worker(place: Path) -> Iterator[None]:
    """Execute queued runs in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(run_table(), home(), stop))
    thread.start()
    yield
    stop.set()
    thread.join()
