"""Decoding of untrusted image files in a limited process, so that the worst of them is only a refused file.

Whatever a user supplies, a library contains or a server sends is decoded through `read_untrusted`. The
process has no file or socket but the one to here, none of this process's environment, and bounds on memory
and time; only pixels come back, whose number is checked. Files that this program wrote are read by
`read_picture`. Not covered: limits on memory where the system has none (macOS); a fault of the operating
system itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from pleinair.tools.child_process import ChannelClosed, ChildProcess, bare_environment
from pleinair.tools.images.limits import MAX_PIXELS
from pleinair.tools.images.reading import FULL, BadPicture, Note, ReadOptions, file_bytes, needs_threads
from pleinair.tools.images.sandbox_process import HEAD, READY, REASONS, REQUEST, extra_seconds, is_plausible
from pleinair.tools.types import ModelFault

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = 1000  # that one process decodes before a new one replaces it
_CPU_SECONDS = 2.0  # for one file, and some more for a large one
_TIMEOUT = 15.0  # seconds for one file; on a busy machine a process has less than all of them
_MEMORY = 448 * 2**20  # bytes that a file may take beyond what an idle process has
_MEMORY_A_PIXEL = 9  # bytes for each pixel allowed: RGB takes 4, and upright once more
_TRIES = 2  # of a file at which a process died: something else may have killed it
_START_TIME = 60.0  # seconds until a process is ready
_EXIT_TIME = 1.0  # second between the end of its socket and the end of a process
_OPENER = "pleinair.tools.images.reading:opened"
_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # they take address space
# glibc keeps freed memory for the next file: page faults cost more than the pixels' way between the processes
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(128 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20)}


@dataclass(frozen=True)
class Read:
    """Image in upright sRGB, what was made up for in its file, and the texts embedded there, by name."""

    image: Image
    note: Note = Note(0)
    texts: Mapping[str, str] = field(default_factory=dict)


def read_untrusted(source: str | Path | bytes, options: ReadOptions = FULL) -> Image:
    """Decode the file at a path, or a file's bytes, to upright sRGB without metadata, in another process.

    Pixels and errors are those of `read_picture`; a file that takes over 2 s of the processor (and 1 s for
    each MiB of it) or 448 MiB (more where more pixels are allowed), or that ends the process, is refused too.
    Raise `BadPicture`; `ModelFault` if no process starts.
    """
    return read_with_notes(source, options).image


def read_with_notes(source: str | Path | bytes, options: ReadOptions = FULL) -> Read:
    """Decode as `read_untrusted` does, and return what else is known of the file."""
    data = file_bytes(source, options)
    return _decoder(options.max_pixels, needs_threads(data)).read(data, options.side, options.alpha)


class _TimedOut(Exception):
    """The process took too long."""


class Decoder:
    """Pool of processes that decode, started when needed: one a caller, at most one a processor.

    Args:
        opener: `module:function` that turns a file's bytes into an image; tests supply worse ones.
        seconds: of the processor for one file.
        timeout: seconds on the clock for one file.
        memory: bytes for one file; more where more pixels are allowed.
        max_pixels: of one file, as `ReadOptions.max_pixels`.
        threads: whether the decoder may start threads, as HEIC needs unless all runs as root.
    """

    def __init__(
        self,
        opener: str = _OPENER,
        seconds: float = _CPU_SECONDS,
        timeout: float = _TIMEOUT,
        memory: int = _MEMORY,
        max_pixels: int = MAX_PIXELS,
        threads: bool = False,
    ) -> None:
        if max_pixels > MAX_PIXELS:
            memory = max(memory, _MEMORY_A_PIXEL * max_pixels)
        self._arguments = (opener, seconds, memory, max_pixels, threads)
        self._seconds, self._timeout = seconds, timeout
        self._reset()

    def read(self, source: str | Path | bytes, side: int = 0, alpha: bool = False) -> Read:
        """Decode one file as `ReadOptions` has it; raise as `read_untrusted` does."""
        options = ReadOptions(side, self._arguments[3], alpha)
        data = file_bytes(source, options)
        if self._owner != os.getpid():  # after a fork the processes are the parent's
            self._reset()
        for _ in range(_TRIES):
            with suppress(ChannelClosed), self._slots:
                return self._decode(data, options)
        raise BadPicture("decoding it ends the decoder")

    def close(self) -> None:
        """End the idle processes."""
        while self._idle:
            self._idle.pop().close()

    def _reset(self) -> None:
        self._idle: deque[_DecoderProcess] = deque()
        self._slots = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._owner = os.getpid()  # last, because another thread that reads it uses the others

    def _decode(self, data: bytes, options: ReadOptions) -> Read:
        process, extra = self._borrow(), extra_seconds(data)
        try:
            return process.decode(data, options, self._timeout + extra)
        except _TimedOut:
            raise BadPicture(f"decoding it takes over {self._timeout + extra:.3g} s") from None
        except ChannelClosed:
            if process.exit_code(_EXIT_TIME) == -signal.SIGVTALRM:
                raise BadPicture(f"decoding it takes over {self._seconds + extra:.3g} s") from None
            raise
        finally:
            if process.fit:
                self._idle.append(process)
            else:
                process.close()

    def _borrow(self) -> _DecoderProcess:
        """Return an idle process that is alive, or start one."""
        with suppress(IndexError):
            while True:
                process = self._idle.pop()
                if process.alive:
                    return process
                process.close()
        process = _DecoderProcess(*self._arguments)
        process.wait_until_ready()
        return process


class _DecoderProcess(ChildProcess):
    """Process that decodes, and the socket to it.

    `fit` is false from a file's first byte to the last of its answer: a process that was left in between
    cannot be used again.
    """

    def __init__(self, *arguments: str | float) -> None:
        self._socket, theirs = socket.socketpair()
        module, environment = "pleinair.tools.images.sandbox_process", bare_environment() | _THREADS | _MALLOC
        options = {"stdout": subprocess.DEVNULL, "env": environment}
        super().__init__(module, self._socket, theirs, *arguments, **options)
        self._decoded, self._busy = 0, False

    @property
    def fit(self) -> bool:
        """Whether it may decode another file."""
        return not self._busy and self._decoded < FILES

    def wait_until_ready(self) -> None:
        """Wait for the ready message; raise `ModelFault` where none comes."""
        self._socket.settimeout(_START_TIME)
        try:
            ready = self._receive(1, monotonic() + _START_TIME) == READY
        except (ChannelClosed, _TimedOut):
            ready = False
        if not ready:
            self.close()
            code = self.process.returncode
            raise ModelFault(f"The process that decodes images does not start (exit status {code}).")

    def decode(self, data: bytes, options: ReadOptions, timeout: float) -> Read:
        """Decode one file; raise `BadPicture` for the process's reason, `_TimedOut` or `ChannelClosed`."""
        from PIL import Image

        self._busy = True
        self._send(REQUEST.pack(len(data), options.side, options.alpha), data, timeout)
        deadline = monotonic() + timeout
        reason, width, height, note, length = HEAD.unpack(self._receive(HEAD.size, deadline))
        if not is_plausible(reason, width, height, note, length):
            self.close()
            raise ChannelClosed
        texts = self._texts(length, deadline)
        mode = options.mode
        pixels = b"" if reason else self._receive(len(mode) * width * height, deadline)
        self._decoded, self._busy = self._decoded + 1, False
        if message := REASONS[reason]:
            raise BadPicture(message)
        return Read(Image.frombytes(mode, (width, height), pixels), Note(note), texts)

    def _send(self, head: bytes, data: bytes, timeout: float) -> None:
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(head)
            self._socket.sendall(data)
        except TimeoutError:
            raise _TimedOut from None
        except OSError:
            raise ChannelClosed from None

    def _texts(self, length: int, deadline: float) -> dict[str, str]:
        """Receive the texts; raise `ChannelClosed` unless they are an object of strings."""
        try:
            texts = json.loads(self._receive(length, deadline)) if length else {}
        except (ValueError, RecursionError):
            texts = None
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            self.close()
            raise ChannelClosed
        return texts

    def _receive(self, size: int, deadline: float) -> bytearray:
        received = bytearray(size)
        rest = memoryview(received)
        while rest:
            try:
                count = self._socket.recv_into(rest)
            except TimeoutError:
                raise _TimedOut from None
            except OSError:
                raise ChannelClosed from None
            if not count:
                raise ChannelClosed
            rest = rest[count:]
            if monotonic() > deadline:
                raise _TimedOut
        return received


@cache
def _decoder(max_pixels: int, threads: bool) -> Decoder:
    return Decoder(max_pixels=max_pixels, threads=threads)
