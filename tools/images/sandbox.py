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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from pleinair.tools.child_process import ChannelClosed, ChildProcess, bare_environment
from pleinair.tools.images.decoding import FULL, Note, ReadOptions, needs_threads
from pleinair.tools.images.limits import MAX_PIXELS
from pleinair.tools.images.reading import BadPicture, file_bytes
from pleinair.tools.images.sandbox_process import (
    HEAD,
    LENGTH,
    READY,
    REASONS,
    REQUEST,
    extra_seconds,
    is_plausible,
)
from pleinair.tools.types import ModelFault

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = 4000  # that one process decodes before a new one replaces it
TOGETHER = 32  # files of one request, at most
_TOGETHER_BYTES = 2**20  # of the files of one request with more than one
_CPU_SECONDS = 2.0  # for one file, and some more for a large one
_TIMEOUT = 15.0  # seconds for one file; on a busy machine a process has less than all of them
_MEMORY = 448 * 2**20  # bytes that a file may take beyond what an idle process has
_MEMORY_A_PIXEL = 9  # bytes for each pixel allowed: RGB takes 4, and upright once more
_TRIES = 2  # of a file at which a process died: something else may have killed it
_START_TIME = 60.0  # seconds until a process is ready
_EXIT_TIME = 1.0  # second between the end of its socket and the end of a process
_OPENER = "pleinair.tools.images.decoding:opened"
_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # they take address space
# glibc keeps freed memory for the next file: page faults cost more than the pixels' way between the processes
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(128 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20)}


@dataclass(frozen=True)
class Read:
    """Image in upright sRGB, what was made up for in its file, and the texts embedded there, by name.

    `size` is the width and height of the file's image, upright, before it was reduced; zeros if unknown.
    """

    image: Image
    note: Note = Note(0)
    texts: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)


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


def read_many(files: Sequence[bytes], options: ReadOptions = FULL) -> list[Read | BadPicture]:
    """Decode files as `read_with_notes` does, small ones many at a time; return their errors in their places.

    A process that is taken over by one of the files could answer for the others of its request, as it could
    for those of later requests.
    """
    results: dict[int, Read | BadPicture] = {}
    for threads in (False, True):
        places = [place for place, data in enumerate(files) if needs_threads(data) == threads]
        if places:
            decoder = _decoder(options.max_pixels, threads)
            reads = decoder.read_many([files[place] for place in places], options.side, options.alpha)
            results |= zip(places, reads, strict=True)
    return [results[place] for place in range(len(files))]


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
                (read,) = self._decode([data], options)
                if isinstance(read, BadPicture):
                    raise read
                return read
        raise BadPicture("decoding it ends the decoder")

    def read_many(
        self, files: Sequence[bytes], side: int = 0, alpha: bool = False
    ) -> list[Read | BadPicture]:
        """Decode files as `read` does, small ones in common requests; return errors in their places.

        Where a request fails, each of its files is decoded alone, so that one file never costs another.
        """
        options = ReadOptions(side, self._arguments[3], alpha)
        return [read for group in _requests(files) for read in self._read_group(group, options)]

    def _read_group(self, files: Sequence[bytes], options: ReadOptions) -> list[Read | BadPicture]:
        if len(files) > 1:
            if self._owner != os.getpid():
                self._reset()
            with suppress(ChannelClosed, BadPicture), self._slots:
                return self._decode(files, options)
        return [self._read_alone(data, options) for data in files]

    def _read_alone(self, data: bytes, options: ReadOptions) -> Read | BadPicture:
        try:
            return self.read(data, options.side, options.alpha)
        except BadPicture as error:
            return error

    def close(self) -> None:
        """End the idle processes."""
        while self._idle:
            self._idle.pop().close()

    def _reset(self) -> None:
        self._idle: deque[_DecoderProcess] = deque()
        self._slots = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._owner = os.getpid()  # last, because another thread that reads it uses the others

    def _decode(self, files: Sequence[bytes], options: ReadOptions) -> list[Read | BadPicture]:
        process, extra = self._borrow(), sum(map(extra_seconds, files))
        try:
            return list(process.decode(files, options, self._timeout + extra))
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

    def decode(
        self, files: Sequence[bytes], options: ReadOptions, timeout: float
    ) -> Iterator[Read | BadPicture]:
        """Decode files, in order; an error is the process's reason. Raise `_TimedOut` or `ChannelClosed`."""
        self._busy = True
        self._send(files, options, timeout)
        deadline = monotonic() + timeout
        for _ in files:
            yield self._answer(options.mode, deadline)
        self._decoded, self._busy = self._decoded + len(files), False

    def _answer(self, mode: str, deadline: float) -> Read | BadPicture:
        from PIL import Image

        head = HEAD.unpack(self._receive(HEAD.size, deadline))
        if not is_plausible(*head):
            self.close()
            raise ChannelClosed
        reason, width, height, full_width, full_height, note, length = head
        texts = self._texts(length, deadline)
        if message := REASONS[reason]:
            return BadPicture(message)
        pixels = self._receive(len(mode) * width * height, deadline)
        image = Image.frombytes(mode, (width, height), pixels)
        return Read(image, Note(note), texts, (full_width, full_height))

    def _send(self, files: Sequence[bytes], options: ReadOptions, timeout: float) -> None:
        head = REQUEST.pack(len(files), options.side, options.alpha)
        lengths = b"".join(LENGTH.pack(len(data)) for data in files)
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(head + lengths)
            self._socket.sendall(files[0] if len(files) == 1 else b"".join(files))
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


def _requests(files: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield the files in groups that fit into one request; empty and large ones come alone."""
    group: list[bytes] = []
    for data in files:
        size = sum(map(len, group)) + len(data)
        if group and (not data or not group[-1] or size > _TOGETHER_BYTES or len(group) == TOGETHER):
            yield group
            group = []
        group.append(data)
    if group:
        yield group


@cache
def _decoder(max_pixels: int, threads: bool) -> Decoder:
    return Decoder(max_pixels=max_pixels, threads=threads)
