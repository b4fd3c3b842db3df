"""Child processes: a fresh Python interpreter with one channel to it, killed when it is not needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from multiprocessing.connection import Connection
from socket import socket
from typing import Any

MAIN = """
import json, sys
path, module, arguments = json.loads(sys.argv[1])
sys.path[:] = path
from importlib import import_module
import_module(module).serve(*arguments)
"""

Channel = socket | Connection
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR")


def bare_environment() -> dict[str, str]:
    """Return what a process that reads untrusted files gets of the environment: no keys and no tokens."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


class ChannelClosed(Exception):
    """The other end of the channel is closed, or sent what it never sends."""


class ChildProcess:
    """Process that runs `serve(descriptor, *arguments)` of a module; killed with this object, or at exit.

    Args:
        module: name of the module.
        ours: end of the channel that this process keeps.
        theirs: end whose descriptor the child inherits; it is closed here.
        arguments: of `serve`, plain JSON.
        options: of `subprocess.Popen`.
    """

    def __init__(self, module: str, ours: Channel, theirs: Channel, *arguments: Any, **options: Any) -> None:
        with theirs:
            call = json.dumps((list(map(str, sys.path)), module, (theirs.fileno(), *arguments)))
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", MAIN, call],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                **options,
            )
        self._kill = weakref.finalize(self, _kill, self.process, ours)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._kill.alive

    def exit_code(self, seconds: float) -> int | None:
        """Return the exit code, negative for a signal; None if the process runs longer than `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Kill the process, which holds nothing worth saving."""
        self._kill()


def _kill(process: subprocess.Popen[bytes], channel: Channel) -> None:
    channel.close()
    process.kill()
    process.wait()
