"""The decoder's child process: it gives up its rights, then turns files into pixels.

Not covered: limits on memory where there is no `/proc` to tell what an idle process has.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from io import BufferedWriter
from pathlib import Path
from typing import IO

from PIL import Image

from pleinair.tools.images.decoding import (
    LARGEST,
    MAX_CLAIM,
    MAX_SIDE,
    Note,
    Opened,
    ReadOptions,
    Undecodable,
    Unreadable,
    load_decoders,
    named_errors,
)

READY = b"!"
# Number of files, `ReadOptions.side` and `ReadOptions.alpha`; the files' lengths follow, then their bytes.
REQUEST = struct.Struct(">HI?")
LENGTH = struct.Struct(">I")
# Index of the reason, width, height, both before the image was reduced, notes, bytes of the texts; where
# there is no reason, the texts follow as a JSON object, then the pixels.
HEAD = struct.Struct(">BIIIIBI")
REASONS = (None, *Unreadable)
MAX_TEXTS = 2**20  # bytes
# Pillow loads these in the middle of a file, when modules can no longer be opened.
_PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Mpo", "Png", "Ppm", "Tiff", "WebP")

_ANSWERS = 512 * 1024  # bytes of answers that are sent together
_SECONDS_A_MIB = 1.0  # of a file, in addition: large photographs take longer than a hostile file needs to

_Opener = Callable[[bytes, ReadOptions], Opened]


def serve(descriptor: int, opener: str, seconds: float, memory: int, max_pixels: int, threads: bool) -> None:
    """Answer each file with pixels or a reason; the process ends when the parent closes the socket.

    All files of a request are read before the first is answered, so neither side waits for the other to read.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both, and the parent decides
    module, _, name = opener.partition(":")
    decode: _Opener = getattr(import_module(module), name)
    for plugin in _PLUGINS:
        import_module(f"PIL.{plugin}ImagePlugin")
    load_decoders()
    Image.MAX_IMAGE_PIXELS = None  # `opened` has bounds of its own
    with (
        socket.socket(fileno=descriptor) as channel,
        channel.makefile("rb") as requests,
        BufferedWriter(channel.makefile("wb", 0), _ANSWERS) as answers,
    ):
        drop_rights(memory, threads)
        channel.sendall(READY)
        while request := _next_files(requests):
            files, side, alpha = request
            options = ReadOptions(side, max_pixels, alpha)
            for data in files:
                # at its end the system kills this process; the time of the system itself, much where memory
                # is short, does not count: that is for the parent's timeout
                signal.setitimer(signal.ITIMER_VIRTUAL, seconds + extra_seconds(data))
                _answer(data, options, decode, answers)
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            answers.flush()


def extra_seconds(data: bytes) -> float:
    """Return the time that a file may take for its size."""
    return len(data) / 2**20 * _SECONDS_A_MIB


def drop_rights(memory: int, threads: bool) -> None:
    """Allow `memory` bytes more and the open descriptors; forbid to open, write or start anything.

    With `threads` the process may start threads, which the system does not tell from processes.
    """
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)  # what decoders print may hold addresses
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    kinds = [resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE]
    for kind in kinds if threads else [*kinds, resource.RLIMIT_NPROC]:
        resource.setrlimit(kind, (0, 0))


def _next_files(requests: IO[bytes]) -> tuple[list[bytes], int, bool] | None:
    """Return the files of a request with its side and alpha, None at the end or for an unfinished request."""
    head = requests.read(REQUEST.size)
    if len(head) < REQUEST.size:
        return None
    count, side, alpha = REQUEST.unpack(head)
    lengths = requests.read(count * LENGTH.size)
    if len(lengths) < count * LENGTH.size:
        return None
    files = [requests.read(length) for (length,) in LENGTH.iter_unpack(lengths)]
    return (files, side, alpha) if all(files) else None


def _answer(data: bytes, options: ReadOptions, decode: _Opener, answers: IO[bytes]) -> None:
    """Write one image, or the reason why there is none."""
    try:
        with named_errors():
            read = decode(data, options)
            strips = read.strips()
            first = next(strips)
    except Undecodable as error:
        answers.write(HEAD.pack(REASONS.index(error.reason), 0, 0, 0, 0, 0, 0))
        return
    texts = json.dumps(dict(read.texts)).encode()
    texts = texts if len(texts) <= MAX_TEXTS else b"{}"
    answers.write(HEAD.pack(0, *read.image.size, *read.size, read.note, len(texts)) + texts)
    answers.write(first.tobytes())
    for strip in strips:
        answers.write(strip.tobytes())


def is_plausible(
    reason: int, width: int, height: int, full_width: int, full_height: int, note: int, texts: int
) -> bool:
    """Return whether a process that was not taken over would send this head; called by the parent."""
    if reason:
        return reason < len(REASONS)
    fits = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= LARGEST
    is_file = full_width <= MAX_CLAIM and full_height <= MAX_CLAIM
    return fits and is_file and note <= max(Note) * 2 - 1 and texts <= MAX_TEXTS
