"""Fixtures for all tests: a temporary home folder, and no network.

The network guard covers this process only: a test that starts another process passes `env=os.environ`, which
keeps the model libraries offline there too.
"""

import gc
import ipaddress
import os
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import settings
from typer.main import get_command

from pleinair.tools.http.support import SUPPORT

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "LANGSMITH_TRACING": "false"}

settings.register_profile("pleinair", deadline=None, derandomize=True)  # a slow machine is not a bug
settings.load_profile("pleinair")

GUARDED = frozenset(
    ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
)


class NetworkRefused(RuntimeError):
    """Network access from a test."""


def is_local(host: object) -> bool:
    """Return whether a host is this machine, without a DNS query."""
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def host_of(event: str, arguments: tuple[Any, ...]) -> object:
    """Return the host of an audited socket call, or None if it has none."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        return arguments[0]
    address = arguments[1]
    return address[0] if isinstance(address, tuple) else None


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise `NetworkRefused` for a socket call to another machine."""
    if event in GUARDED and not is_local(host := host_of(event, arguments)):
        raise NetworkRefused(f"{event} to {host!r}: tests may connect only to this machine")


sys.addaudithook(refuse_network)


def pytest_collection_finish() -> None:
    """Exclude the million objects of the imports from garbage collection, a seventh of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `.ci/run`, where everything that a test needs is installed."""
    parser.addoption("--fail-on-skip", action="store_true", help="exit with 1 if a test was skipped")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Undo `gc.freeze`, otherwise nanobind reports leaks; fail on a skipped test where that is asked for."""
    gc.unfreeze()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--fail-on-skip") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def hasty() -> Iterator[None]:
    """Switch between threads far more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture(autouse=True)
def unknown_servers() -> Iterator[None]:
    """Forget what servers support, and which are down, after each test; the next one may get their ports."""
    yield
    SUPPORT.forget()
    if servers := sys.modules.get("pleinair.tools.http.servers"):
        servers.forget()


@pytest.fixture(scope="session", autouse=True)
def command() -> Iterator[None]:
    """Build the command line once per session; typer builds it for every call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use one temporary home folder for all tests.

    xdist's workers share its cache, so that the pocket library and its index are written only once.
    """
    home = tmp_path_factory.mktemp("home")
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = tmp_path_factory.getbasetemp().parent / "cache"
        shared.mkdir(exist_ok=True)
        (home / "cache").symlink_to(shared, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLEINAIR_HOME", str(home))
        yield
