"""Who holds a run: a process of one machine, and whether it still lives."""

from __future__ import annotations

import os
import secrets
import socket
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Owner(BaseModel):
    """Name one holder; two threads of a process are two holders."""

    model_config = ConfigDict(frozen=True)

    host: str  # machine, boot and process namespace: within it a process id means one process
    pid: int
    started: str  # tells a process from a later one with the same id
    nonce: str

    def dead(self) -> bool:
        """Tell whether the process is known to be gone; of another machine's nothing is known."""
        return self.host == _host() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.split('/')[0]}"


def new_owner() -> Owner:
    """Make an owner out of this process."""
    pid = os.getpid()
    return Owner(host=_host(), pid=pid, started=_started(pid), nonce=secrets.token_hex(4))


@cache
def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    parts = [socket.gethostname(), boot.read_text(encoding="ascii")[:8] if boot.exists() else ""]
    return "/".join([*parts, os.readlink(namespace) if namespace.exists() else ""])


def _started(pid: int) -> str:
    """Give a process's start time in clock ticks, "" when it is gone or a zombie.

    Without /proc only the bare id is looked at, so a reused one passes for alive until its lease ends.
    """
    if not Path("/proc/self/stat").exists():
        return _alive(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces
    return "" if fields[0] in "ZX" else fields[19]


def _alive(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
