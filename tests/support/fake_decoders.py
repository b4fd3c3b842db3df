"""Decoders for tests of their process: what a fault in one, or a break-in through one, may try."""

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

PLACE = "support.fake_decoders:"  # before a function's name


def plain(data: bytes) -> Image.Image:
    """Do what is asked."""
    return Image.open(BytesIO(data))


def sleep(data: bytes) -> Image.Image:
    """Never end, without any work."""
    time.sleep(600)
    return plain(data)


def spin(data: bytes) -> Image.Image:
    """Never end."""
    while True:
        pass


def hoard(data: bytes) -> Image.Image:
    """Take all the memory there is."""
    held = []
    while True:
        held.append(bytearray(2**20))


def segfault(data: bytes) -> Image.Image:
    """Read where nothing is."""
    ctypes.string_at(0)
    return plain(data)


def leave(data: bytes) -> Image.Image:
    """End in good order, which no decoder may."""
    os._exit(0)


def die_once(data: bytes) -> Image.Image:
    """Be killed from outside at the first file of a process that is no child's second."""
    flag = Path(json.loads(data)["flag"])
    if flag.exists():
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return Image.new("RGB", (2, 2))


def raise_foreign(data: bytes) -> Image.Image:
    """Raise what no list of faults has."""
    raise KeyboardInterrupt(f"at {id(data):#x}")


def lie(data: bytes) -> Image.Image:
    """Send the given bytes in place of an answer."""
    for number in range(3, 64):
        with suppress(OSError):
            os.write(number, data)
    time.sleep(600)
    return Image.new("RGB", (1, 1))


def reach(data: bytes) -> Image.Image:
    """Try for files, network, programs and secrets; the picture's width counts what was reached."""
    reached = 0
    for attempt in (read_a_file, write_a_file, open_a_socket, start_a_program, read_a_secret):
        try:
            attempt()
        except (OSError, KeyError):
            continue
        reached += 1
    return Image.new("RGB", (1 + reached, 1))


def read_a_file() -> None:
    with open(__file__, "rb"):
        pass


def write_a_file() -> None:
    with open(os.environ.get("TMPDIR", ".") + "/loot", "wb"):
        pass


def open_a_socket() -> None:
    socket.socket().close()


def start_a_program() -> None:
    if os.geteuid() == 0:  # whom no number of processes binds: what he starts cannot open its own libraries
        status = os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]
        if status:
            raise OSError(status)
    else:
        os.fork()


def read_a_secret() -> None:
    os.environ["PLEINAIR_TEST_KEY"]


def head(reason: int, width: int, height: int) -> bytes:
    """Write an answer's head as the process does."""
    return struct.pack(">BII", reason, width, height)
