"""Decode picture files of others in a limited process, so that the worst of them is only a refused file.

Whatever a user gives, a library holds or a server sends is decoded through `read_untrusted`. The process has
no file or socket of its own but the one to here, none of this process's environment, and bounds on memory and
time; only pixels come back, whose number is checked. Files that this program wrote are read by `pictures`.
Not covered: limits on memory where the system keeps none (macOS); a fault of the operating system itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from pleinair.tools.child_process import ChannelClosed, ChildProcess
from pleinair.tools.images.reading import BadPicture, file_bytes
from pleinair.tools.images.sandbox_process import HEAD, LENGTH, READY, REASONS, believable
from pleinair.tools.types import ModelFault

if TYPE_CHECKING:
    from PIL.Image import Image

SECONDS = 2.0  # of the processor, for one file
PATIENCE = 15.0  # seconds on the clock for one file: a busy machine gives a process less than all of them
MEMORY = 448 * 2**20  # bytes that a file may take beyond what an idle process has
FILES = 1000  # that one process decodes before a fresh one takes its place
TRIES = 2  # of a file of which a process died: something else may have ended it
START = 60.0  # seconds until a process is ready
EXIT_TIME = 1.0  # second between the end of its socket and the end of a process
OPENER = "pleinair.tools.images.reading:opened"
THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # they take address space
# glibc keeps freed memory for the next file: page faults cost more than the pixels' way between the processes
MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(128 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20)}
KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR")


def read_untrusted(source: str | Path | bytes) -> Image:
    """Decode the file at a path, or a file's bytes, to upright RGB without metadata, in another process.

    The pixels and the refusals are those of `pictures.read_picture`; a file is refused too that takes more
    than `SECONDS` or `MEMORY`, or that ends the process. Raise `BadPicture`; `ModelFault` if none starts.
    """
    return _decoder.read(source)


class Late(Exception):
    """The process took too long."""


class Decoder:
    """Keep processes that decode, each started when it is needed: one a caller, at most one a processor.

    Args:
        opener: `module:function` that turns a file's bytes into an image; tests give worse ones.
        seconds: of the processor for one file.
        patience: seconds on the clock for one file.
        memory: bytes for one file.
    """

    def __init__(
        self,
        opener: str = OPENER,
        seconds: float = SECONDS,
        patience: float = PATIENCE,
        memory: int = MEMORY,
    ) -> None:
        self._arguments = (opener, seconds, memory)
        self._seconds, self._patience = seconds, patience
        self._own()

    def read(self, source: str | Path | bytes) -> Image:
        """Decode one file; raise as `read_untrusted` does."""
        data = file_bytes(source)
        if self._owner != os.getpid():  # a fork: those processes are the parent's
            self._own()
        for _ in range(TRIES):
            with suppress(ChannelClosed), self._slots:
                return self._try(data)
        raise BadPicture("decoding it ends the decoder")

    def close(self) -> None:
        """End the idle processes."""
        while self._idle:
            self._idle.pop().close()

    def _own(self) -> None:
        self._idle: deque[DecoderProcess] = deque()
        self._slots = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._owner = os.getpid()  # last: another thread that reads it takes from what is there

    def _try(self, data: bytes) -> Image:
        child = self._borrow()
        try:
            return child.decode(data, self._patience)
        except Late:
            raise BadPicture(f"decoding it takes over {self._patience:g} s") from None
        except ChannelClosed:
            if child.exit_code(EXIT_TIME) == -signal.SIGVTALRM:
                raise BadPicture(f"decoding it takes over {self._seconds:g} s") from None
            raise
        finally:
            if child.fit:
                self._idle.append(child)
            else:
                child.close()

    def _borrow(self) -> DecoderProcess:
        """Take an idle process that is still alive, or start one."""
        with suppress(IndexError):
            while True:
                child = self._idle.pop()
                if child.alive:
                    return child
                child.close()
        child = DecoderProcess(*self._arguments)
        child.wait_until_ready()
        return child


class DecoderProcess(ChildProcess):
    """Process that decodes, and the socket to it.

    `fit` is false from a file's first byte to the last of its answer: a process that was left in between
    cannot be used again.
    """

    def __init__(self, opener: str, seconds: float, memory: int) -> None:
        self._socket, theirs = socket.socketpair()
        super().__init__(
            "pleinair.tools.images.sandbox_process",
            self._socket,
            theirs,
            opener,
            seconds,
            memory,
            stdout=subprocess.DEVNULL,
            env=_environment(),
        )
        self._decoded, self._busy = 0, False

    @property
    def fit(self) -> bool:
        """Whether it may decode another file."""
        return not self._busy and self._decoded < FILES

    def wait_until_ready(self) -> None:
        """Wait for the first sign of life; raise `ModelFault` where none comes."""
        self._socket.settimeout(START)
        try:
            ready = self._hear(1, monotonic() + START) == READY
        except (ChannelClosed, Late):
            ready = False
        if not ready:
            self.close()
            code = self.process.returncode
            raise ModelFault(f"The process that decodes pictures does not start (exit status {code}).")

    def decode(self, data: bytes, patience: float) -> Image:
        """Decode one file; raise `BadPicture` as it says, `Late` or `ChannelClosed`."""
        self._busy = True
        self._socket.settimeout(patience)
        try:
            self._socket.sendall(LENGTH.pack(len(data)) + data)
        except TimeoutError:
            raise Late from None
        except OSError:
            raise ChannelClosed from None
        deadline = monotonic() + patience
        reason, width, height = HEAD.unpack(self._hear(HEAD.size, deadline))
        if not believable(reason, width, height):
            self.close()
            raise ChannelClosed
        pixels = b"" if reason else self._hear(3 * width * height, deadline)
        self._decoded, self._busy = self._decoded + 1, False
        if fault := REASONS[reason]:
            raise BadPicture(fault)
        return _image(width, height, pixels)

    def _hear(self, size: int, deadline: float) -> bytearray:
        heard = bytearray(size)
        rest = memoryview(heard)
        while rest:
            try:
                count = self._socket.recv_into(rest)
            except TimeoutError:
                raise Late from None
            except OSError:
                raise ChannelClosed from None
            if not count:
                raise ChannelClosed
            rest = rest[count:]
            if monotonic() > deadline:
                raise Late
        return heard


def _image(width: int, height: int, pixels: bytes | bytearray) -> Image:
    from PIL import Image

    return Image.frombytes("RGB", (width, height), pixels)


def _environment() -> dict[str, str]:
    """Give what an interpreter may need to start; keys and tokens stay here."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, **THREADS, **MALLOC}


_decoder = Decoder()
