"""Fixtures of the browser tests: Chromium, a server, a visitor whose faults fail the test."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from support.browser import LONG, PATIENCE, NewServer, NewVisitor, Server, Visitor, launch, new_visitor

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Run one Chromium for all tests; every visitor has a profile of its own."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the servers share, so that the pocket library is written once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="package")
def make_server(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[NewServer]:
    """Return a function that starts a server with an empty home."""
    servers: list[Server] = []

    def make(*options: str, **environment: str) -> Server:
        home = tmp_path_factory.mktemp("home")
        (home / "cache").symlink_to(cache, target_is_directory=True)
        servers.append(Server(home, *options, **environment))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="package")
def server(make_server: NewServer) -> Server:
    """Return the server of most tests."""
    return make_server()


@pytest.fixture(scope="package")
def slow_server(make_server: NewServer) -> Server:
    """Return a server whose images take so many steps that there is time to do something meanwhile."""
    return make_server(PLEINAIR_IMAGE__NUM_INFERENCE_STEPS=LONG)


@pytest.fixture
def visitors(browser: Browser) -> Iterator[NewVisitor]:
    """Return a function that opens a page of a server; whatever goes wrong on it fails the test."""
    visitors: list[Visitor] = []

    def open_page(server: Server, **options: Any) -> Visitor:
        visitors.append(new_visitor(browser, server.address, **options))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.context.close()
    assert [fault for visitor in visitors for fault in visitor.faults] == []


@pytest.fixture
def visitor(visitors: NewVisitor, server: Server) -> Visitor:
    """Return a visitor of the server of most tests."""
    return visitors(server)
