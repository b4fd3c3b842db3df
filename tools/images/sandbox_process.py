"""What goes on in a decoder's process: it gives up its rights, then turns files into pixels.

Not covered: limits on memory where there is no `/proc` to tell what an idle process has.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pleinair.tools.images.reading import (
    MAX_PIXELS,
    MAX_SIDE,
    BadPicture,
    Unreadable,
    faults_named,
    to_rgb,
)

if TYPE_CHECKING:
    from PIL.Image import Image

READY = b"!"
LENGTH = struct.Struct(">I")  # of the file that follows, bytes
HEAD = struct.Struct(">BII")  # index of the reason, width, height; pixels follow where there is no reason
REASONS = (None, *Unreadable)
STRIP = 4 * 2**20  # bytes of RGB made at once, so that a large picture is never there twice
# What Pillow loads in the middle of a file; later there is no opening of modules.
LATER = ("Bmp", "Gif", "Jpeg", "Mpo", "Png", "Ppm", "Tiff", "WebP")

Opener = Callable[[bytes], "Image"]


def serve(descriptor: int, opener: str, seconds: float, memory: int) -> None:
    """Answer each file with pixels or a reason; the process ends when the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both, and the parent decides
    module, _, name = opener.partition(":")
    decode: Opener = getattr(import_module(module), name)
    for plugin in LATER:
        import_module(f"PIL.{plugin}ImagePlugin")
    with socket.socket(fileno=descriptor) as line, line.makefile("rb") as files:
        _give_up(memory)
        line.sendall(READY)
        while data := _next_file(files):
            # at its end the system kills this process; what the system itself takes, much where memory is
            # short, does not count: that is for the parent's patience
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            answer(data, decode, line)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _give_up(memory: int) -> None:
    """Keep `memory` bytes more than there are and the open descriptors; open, write, start nothing."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # what decoders print may hold addresses
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for kind in (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        resource.setrlimit(kind, (0, 0))


def _next_file(files: IO[bytes]) -> bytes:
    """Give the next file's bytes; none at the end."""
    head = files.read(LENGTH.size)
    return files.read(*LENGTH.unpack(head)) if len(head) == LENGTH.size else b""


def answer(data: bytes, decode: Opener, line: socket.socket) -> None:
    """Send one picture, or why there is none."""
    try:
        with faults_named():
            image = decode(data)
            strips = rgb_strips(image)
            first = next(strips)
    except BadPicture as fault:
        line.sendall(HEAD.pack(REASONS.index(fault.reason), 0, 0))
        return
    line.sendall(HEAD.pack(0, *image.size))
    line.sendall(first)
    for strip in strips:
        line.sendall(strip)


def rgb_strips(image: Image) -> Iterator[bytes]:
    """Yield the picture's pixels as RGB, rows from the top, some megabytes at once."""
    width, height = image.size
    rows = max(1, STRIP // (3 * width))
    for top in range(0, height, rows):
        whole = rows >= height
        strip = image if whole else image.crop((0, top, width, min(height, top + rows)))
        plain = strip.mode == "RGB" and not strip.has_transparency_data
        yield (strip if plain else to_rgb(strip)).tobytes()


def believable(reason: int, width: int, height: int) -> bool:
    """Tell whether a process that is still itself would say this; asked by the parent."""
    if reason:
        return reason < len(REASONS)
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS
