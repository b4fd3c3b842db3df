"""The decoder's child process: it gives up its rights, then turns files into pixels.

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

from pleinair.tools.images.reading import MAX_PIXELS, MAX_SIDE, BadPicture, Unreadable, named_errors, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

READY = b"!"
LENGTH = struct.Struct(">I")  # of the file that follows, bytes
HEAD = struct.Struct(">BII")  # index of the reason, width, height; pixels follow where there is no reason
REASONS = (None, *Unreadable)
STRIP = 4 * 2**20  # bytes of RGB made at once, so that a large image is never there twice
# Pillow loads these in the middle of a file, when modules can no longer be opened.
_PLUGINS = ("Bmp", "Gif", "Jpeg", "Mpo", "Png", "Ppm", "Tiff", "WebP")

_Opener = Callable[[bytes], "Image"]


def serve(descriptor: int, opener: str, seconds: float, memory: int) -> None:
    """Answer each file with pixels or a reason; the process ends when the parent closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both, and the parent decides
    module, _, name = opener.partition(":")
    decode: _Opener = getattr(import_module(module), name)
    for plugin in _PLUGINS:
        import_module(f"PIL.{plugin}ImagePlugin")
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as files:
        _drop_rights(memory)
        channel.sendall(READY)
        while data := _next_file(files):
            # at its end the system kills this process; the time of the system itself, much where memory is
            # short, does not count: that is for the parent's timeout
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            _answer(data, decode, channel)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _drop_rights(memory: int) -> None:
    """Allow `memory` bytes more and the open descriptors; forbid to open, write or start anything."""
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)  # what decoders print may hold addresses
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for kind in (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        resource.setrlimit(kind, (0, 0))


def _next_file(files: IO[bytes]) -> bytes:
    head = files.read(LENGTH.size)
    return files.read(*LENGTH.unpack(head)) if len(head) == LENGTH.size else b""


def _answer(data: bytes, decode: _Opener, channel: socket.socket) -> None:
    """Send one image, or the reason why there is none."""
    try:
        with named_errors():
            image = decode(data)
            strips = rgb_strips(image)
            first = next(strips)
    except BadPicture as error:
        channel.sendall(HEAD.pack(REASONS.index(error.reason), 0, 0))
        return
    channel.sendall(HEAD.pack(0, *image.size))
    channel.sendall(first)
    for strip in strips:
        channel.sendall(strip)


def rgb_strips(image: Image) -> Iterator[bytes]:
    """Yield the image's pixels as RGB, rows from the top, some megabytes at once."""
    width, height = image.size
    rows = max(1, STRIP // (3 * width))
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(height, top + rows)))
        plain = strip.mode == "RGB" and not strip.has_transparency_data
        yield (strip if plain else to_rgb(strip)).tobytes()


def is_plausible(reason: int, width: int, height: int) -> bool:
    """Return whether a process that was not taken over would send this head; called by the parent."""
    if reason:
        return reason < len(REASONS)
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS
