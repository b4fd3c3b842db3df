"""Fake decoders for the sandbox: what a bug in one, or an attack through one, may try."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image

from pleinair.tools.images.decoding import Opened, ReadOptions

MODULE = "support.fake_decoders:"  # before a function's name


def plain(data: bytes, options: ReadOptions) -> Opened:
    """Decode the file."""
    return Opened(Image.open(BytesIO(data)))


def sleep(data: bytes, options: ReadOptions) -> Opened:
    """Hang without using the processor."""
    time.sleep(600)
    return plain(data, options)


def spin(data: bytes, options: ReadOptions) -> Opened:
    """Use the processor for ever."""
    while True:
        pass


def hoard(data: bytes, options: ReadOptions) -> Opened:
    """Allocate all memory."""
    blocks = []
    while True:
        blocks.append(bytearray(2**20))


def segfault(data: bytes, options: ReadOptions) -> Opened:
    """Crash."""
    ctypes.string_at(0)
    return plain(data, options)


def leave(data: bytes, options: ReadOptions) -> Opened:
    """Exit with status 0."""
    os._exit(0)


def die_once(data: bytes, options: ReadOptions) -> Opened:
    """Kill the process at its first file, whose flag it removes; decode the second."""
    flag = Path(json.loads(data)["flag"])
    if flag.exists():
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return Opened(Image.new("RGB", (2, 2)))


def die_at_text(data: bytes, options: ReadOptions) -> Opened:
    """Kill the process at a file that is no image."""
    if data == b"text":
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(data, options)


def raise_foreign(data: bytes, options: ReadOptions) -> Opened:
    """Raise what the decoder does not catch."""
    raise KeyboardInterrupt(f"at {id(data):#x}")


def send(data: bytes, options: ReadOptions) -> Opened:
    """Send the data in place of an answer."""
    for number in range(3, 64):
        with suppress(OSError):
            os.write(number, data)
    time.sleep(600)
    return Opened(Image.new("RGB", (1, 1)))


def reach(data: bytes, options: ReadOptions) -> Opened:
    """Try to use files, network, programs and secrets; the image's width counts the successes."""
    reached = 0
    for attempt in (read_a_file, write_a_file, open_a_socket, start_a_program, read_a_secret):
        try:
            attempt()
        except (OSError, KeyError):
            continue
        reached += 1
    return Opened(Image.new("RGB", (1 + reached, 1)))


def read_a_file() -> None:
    with open(__file__, "rb"):
        pass


def write_a_file() -> None:
    with open(os.environ.get("TMPDIR", ".") + "/loot", "wb"):
        pass


def open_a_socket() -> None:
    socket.socket().close()


def start_a_program() -> None:
    if os.geteuid() == 0:  # no limit of processes applies, but a program cannot open its own libraries
        status = os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]
        if status:
            raise OSError(status)
    else:
        os.fork()


def read_a_secret() -> None:
    os.environ["PLEINAIR_TEST_KEY"]


def head(
    reason: int, width: int, height: int, note: int = 0, texts: int = 0, full: tuple[int, int] = (1, 1)
) -> bytes:
    """Pack the head of an answer as the process does."""
    return struct.pack(">BIIIIBI", reason, width, height, *full, note, texts)
