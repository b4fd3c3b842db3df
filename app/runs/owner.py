"""Holder of a run: a thread of a process, and whether that process has ended."""

from __future__ import annotations

import os
import secrets
import socket
from functools import cache
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict


class Owner(BaseModel):
    """Holder of a run; two threads of a process are two holders."""

    model_config = ConfigDict(frozen=True)

    host: str  # machine, boot and process namespace, in which a process id is unique
    pid: int
    started: str  # distinguishes a process from a later one with the same id
    nonce: str

    def dead(self) -> bool:
        """Return whether the process is known to have ended; False for one of another machine."""
        try:
            return self.host == _host() and _started(self.pid) != self.started
        except psutil.AccessDenied:  # it exists, under another user
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.split('/')[0]}"


def new_owner() -> Owner:
    """Return an owner for this thread of this process."""
    pid = os.getpid()
    return Owner(host=_host(), pid=pid, started=_started(pid), nonce=secrets.token_hex(4))


@cache
def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    parts = [socket.gethostname(), boot.read_text(encoding="ascii")[:8] if boot.exists() else ""]
    return "/".join([*parts, os.readlink(namespace) if namespace.exists() else ""])


def _started(pid: int) -> str:
    """Return when a process started, in 1/100 s after the boot; "" if it has ended or is a zombie.

    Unlike the start and the boot, the difference does not change with the clock.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return ""
        return str(round(100 * (process.create_time() - psutil.boot_time())))
    except psutil.NoSuchProcess:
        return ""
