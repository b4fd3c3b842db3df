"""Hostile files meet a decoder with a process of its own: whatever they do to it, this process goes on.

FUZZ says how many mutated files are tried, SEED which; ten thousand take some minutes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_decoders import PLACE, head
from support.hostile_files import BAD, BOMBS, GOOD, POLYGLOTS, mutate, rotated

from pleinair.tools.images import sandbox as decoding
from pleinair.tools.images import sandbox_process as decoding_process
from pleinair.tools.images.reading import BadPicture, Unreadable, opened, read_picture
from pleinair.tools.images.sandbox import Decoder
from pleinair.tools.images.sandbox_process import REASONS
from pleinair.tools.types import ModelFault

FUZZ = int(os.environ.get("FUZZ", "400"))
SEED = int(os.environ.get("SEED", "1"))
EASY = GOOD["png"]()
MOST = 512  # MiB that a decoder's process may ever have


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    shared = Decoder()
    yield shared
    shared.close()


def peak(decoder: Decoder) -> int:
    """Give what the idle process has had in memory at most, in MiB; `ru_maxrss` would count its parent's."""
    if sys.platform != "linux":
        return 0
    status = Path(f"/proc/{decoder._idle[-1].process.pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def pid(decoder: Decoder) -> int:
    return decoder._idle[-1].process.pid


def outcome(read: Any, data: bytes) -> str | tuple[str, tuple[int, int], bytes]:
    """Give the pixels, or the reason why there are none."""
    try:
        image = read(data)
    except BadPicture as fault:
        return str(fault)
    return image.mode, image.size, image.tobytes()


@pytest.mark.parametrize("name", [*GOOD, *BAD, *BOMBS, *POLYGLOTS])
def test_pixels_and_refusals_are_those_of_this_process(decoder: Decoder, name: str) -> None:
    data = {**GOOD, **BAD, **BOMBS, **POLYGLOTS}[name]()
    assert outcome(decoder.read, data) == outcome(read_picture, data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_turn_crosses(decoder: Decoder, orientation: int) -> None:
    assert outcome(decoder.read, rotated(orientation)) == outcome(read_picture, rotated(orientation))


@pytest.mark.parametrize("name", ["png", "png alpha", "png rotated", "jpeg cmyk", "png 16-bit"])
def test_a_picture_made_in_strips_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_process, "STRIP", 3 * 48 * 5)
    image = opened(GOOD[name]())
    strips = list(decoding_process.rgb_strips(image))
    assert len(strips) > 3
    assert b"".join(strips) == read_picture(GOOD[name]()).tobytes()


def test_no_mutation_ends_or_outgrows_the_process() -> None:
    rng = random.Random(SEED)
    originals = [make() for make in (*GOOD.values(), *POLYGLOTS.values())]
    decoder, seen = Decoder(), Counter[str]()
    for number in range(FUZZ):
        found = outcome(decoder.read, mutate(originals[number % len(originals)], rng))
        seen[found if isinstance(found, str) else found[0]] += 1
        assert not decoder._idle or peak(decoder) < MOST
    decoder.close()
    assert set(seen) <= {"RGB", *REASONS}  # it neither died nor took too long
    assert FUZZ / 20 < seen["RGB"] < FUZZ


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_no_memory(name: str) -> None:
    decoder = Decoder()
    with pytest.raises(BadPicture):
        decoder.read(BOMBS[name]())
    assert peak(decoder) < MOST / 2
    decoder.close()


def bad(opener: str, data: bytes = EASY, **limits: Any) -> str:
    """Give the reason for which one of the tests' own decoders is given up."""
    decoder = Decoder(PLACE + opener, **limits)
    with pytest.raises(BadPicture) as caught:
        decoder.read(data)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not decoder._idle or decoder._idle[-1].alive
    decoder.close()
    return str(caught.value)


def test_a_decoder_that_works_too_long_is_ended_by_the_system() -> None:
    assert bad("spin", seconds=0.1) == "decoding it takes over 0.1 s"


def test_a_decoder_that_sleeps_is_ended_from_here() -> None:
    assert bad("sleep", patience=0.3) == "decoding it takes over 0.3 s"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no such bound")
def test_a_decoder_that_takes_all_memory_gets_no_more() -> None:
    assert bad("hoard", memory=64 * 2**20, seconds=60) == Unreadable.COSTLY


@pytest.mark.parametrize("opener", ["segfault", "leave", "raise_foreign"])
def test_a_death_is_a_refused_file_whatever_its_way(opener: str) -> None:
    assert bad(opener) == "decoding it ends the decoder"


LIES = {
    "no reason known": head(200, 0, 0),
    "too wide": head(0, 10**9, 1),
    "too many": head(0, 8192, 8192),
    "empty": head(0, 0, 5),
    "a pickle": b"\x80\x04\x95\x20\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix",
}


@pytest.mark.parametrize("name", LIES)
def test_what_a_decoder_never_says_is_not_believed(name: str) -> None:
    assert bad("lie", LIES[name]) == "decoding it ends the decoder"


@pytest.mark.parametrize("said", [head(0, 100, 100), head(0, 100, 100) + bytes(500)])
def test_pixels_that_do_not_come_are_not_waited_for(said: bytes) -> None:
    assert bad("lie", said, patience=0.3) == "decoding it takes over 0.3 s"


def test_a_decoder_reaches_no_file_network_program_or_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_TEST_KEY", "sk-1234567890")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    decoder = Decoder(PLACE + "reach")
    assert decoder.read(EASY).size == (1, 1)
    assert not list(tmp_path.iterdir())
    decoder.close()


def test_a_process_that_something_else_ended_costs_no_file(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    decoder = Decoder(PLACE + "die_once")
    assert decoder.read(json.dumps({"flag": str(flag)}).encode()).size == (2, 2)
    assert not flag.exists()
    decoder.close()


def test_a_death_between_two_files_costs_none(decoder: Decoder) -> None:
    decoder.read(EASY)
    child = decoder._idle[-1]
    child.process.kill()
    child.process.wait()
    assert decoder.read(EASY).size == (48, 32)
    assert pid(decoder) != child.process.pid


def test_one_process_serves_and_is_replaced_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "FILES", 3)
    decoder, seen = Decoder(), list[int]()
    for _ in range(5):
        decoder.read(EASY)
        seen += [pid(decoder)] if decoder._idle else []
    assert len(seen) == 4  # after the third file there is none
    assert seen[0] == seen[1] != seen[2] == seen[3]
    decoder.close()


def test_callers_at_once_have_processes_of_their_own() -> None:
    decoder, pids = Decoder(), set[int]()
    both = threading.Barrier(2)

    def take() -> None:
        child = decoder._borrow()
        both.wait()
        pids.add(child.process.pid)
        child.close()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 2


def test_a_process_that_does_not_start_is_a_fault_of_ours() -> None:
    with pytest.raises(ModelFault, match=r"does not start \(exit status 1\)"):
        Decoder("support.fake_decoders:none_such").read(EASY)


def test_a_parent_that_vanishes_ends_its_child() -> None:
    decoder = Decoder()
    decoder.read(EASY)
    child = decoder._idle.pop()
    child._socket.close()
    assert child.process.wait(10) == 0
    child.close()


def test_what_is_refused_here_starts_no_process(tmp_path: Path) -> None:
    decoder = Decoder()
    for source in (b"", tmp_path, tmp_path / "absent.png"):
        with pytest.raises(BadPicture):
            decoder.read(source)
    assert not decoder._idle


def test_an_interrupt_leaves_no_half_told_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder()
    decoder.read(EASY)
    child = decoder._idle[-1]

    def interrupt(size: int, deadline: float) -> bytearray:
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "_hear", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decoder.read(EASY)
    assert not child.alive
    assert decoder.read(GOOD["jpeg"]()).size == (48, 32)
    decoder.close()


def test_no_more_processes_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    decoder, seen = Decoder(), list[int]()

    def read() -> None:
        decoder.read(EASY)
        seen.append(len(decoder._idle))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 6 and max(seen) == 1
    decoder.close()


FORK = """
import os, sys
from pleinair.tools.images.sandbox import Decoder
decoder, data = Decoder(), sys.stdin.buffer.read()
decoder.read(data)
mine = decoder._idle[-1].process.pid
if not (child := os.fork()):
    try:
        decoder.read(data)
        os._exit(decoder._idle[-1].process.pid == mine)
    finally:
        os._exit(2)
assert os.waitpid(child, 0)[1] == 0
decoder.read(data)
assert decoder._idle[-1].process.pid == mine
"""


def test_a_fork_has_processes_of_its_own() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    subprocess.run(command, input=EASY, env=os.environ, check=True, timeout=120)
