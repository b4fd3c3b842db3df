"""Study: pairs of images of equal prompts, blind and in random order, in a folder of its own.

`study.json` is written once, and has which image is on which side; nothing of it but the prompt is in a page.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pleinair.app.comparison.sources import Entry, digest_of, read_source
from pleinair.tools.storage.files import checked_path, write_whole
from pleinair.tools.types import BadInput, Value

FILE = "study.json"
Side = Literal["left", "right"]
Source = Literal["a", "b"]
SIDES: tuple[Side, ...] = ("left", "right")


class Shown(Value):
    """Image of a pair."""

    file: str  # absolute
    sha256: str  # of the file
    seed: int | None = None


class Pair(Value):
    """Two images of one prompt."""

    key: str  # in the votes; says nothing about the sides
    prompt: str
    a: Shown
    b: Shown
    left: Source  # the image that is shown on the left


class Study(Value):
    """Pairs of two sources."""

    format: Literal[1] = 1
    a: str  # the source as it was named
    b: str
    seed: int  # of the sides and of the order
    secret: str  # from which the names of images in addresses are made
    pairs: tuple[Pair, ...]

    @cached_property
    def by_key(self) -> dict[str, Pair]:
        """The pairs by their keys."""
        return {pair.key: pair for pair in self.pairs}

    @cached_property
    def images(self) -> dict[str, Shown]:
        """The images by their names in addresses."""
        return {self.image_name(pair, side): shown_at(pair, side) for pair in self.pairs for side in SIDES}

    def image_name(self, pair: Pair, side: Side) -> str:
        """Return the name of an image in addresses, from which neither file nor source can be known."""
        return hashlib.sha256(f"{self.secret}/{pair.key}/{side}".encode()).hexdigest()[:32]

    def order(self, judge: str) -> list[Pair]:
        """Return the pairs in the order of a judge."""
        pairs = list(self.pairs)
        random.Random(f"{self.seed}/{judge}").shuffle(pairs)
        return pairs


def source_at(pair: Pair, side: Side) -> Source:
    """Return the source of the image on a side."""
    other: Source = "b" if pair.left == "a" else "a"
    return pair.left if side == "left" else other


def shown_at(pair: Pair, side: Side) -> Shown:
    """Return the image on a side."""
    return pair.a if source_at(pair, side) == "a" else pair.b


def open_study(out: str | Path, a: str = "", b: str = "", seed: int = 0) -> Study:
    """Return the study of a folder, which is written for two sources if there is none.

    Args:
        out: the folder.
        a: the first source, as of `read_source`; "" for the study that is there.
        b: the second source.
        seed: of the sides and of the order.

    Raises:
        BadInput: the folder is a file, or has a study of other sources; or none, and the sources do not make
            one.
    """
    folder = checked_path(str(out), "--out").absolute()
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {str(folder)!r}: it is a file; must be a folder")
    stored = read_study(folder)
    if stored is None:
        if not (a and b):
            raise BadInput(f"{folder}: there is no study in it", "Name two folders or runs, A and B.")
        stored = make_study(a, b, seed)
        write_whole(folder / FILE, stored.model_dump_json(indent=1).encode())
    elif (a or b) and (a, b, seed) != (stored.a, stored.b, stored.seed):
        raise BadInput(
            f"{folder}: it has a study of {stored.a!r} and {stored.b!r}, seed {stored.seed}",
            "Choose another folder by --out, or leave out A and B to go on with it.",
        )
    return stored


def read_study(folder: Path) -> Study | None:
    """Return the study of a folder, None where there is none; raises `BadInput` for a damaged one."""
    path = folder / FILE
    try:
        return Study.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise BadInput(f"{path}: it is no study that this version can read") from error


def make_study(a: str, b: str, seed: int) -> Study:
    """Pair the images of two sources; raises `BadInput` if they share no prompt, or all files."""
    pairs = paired(read_source(a), read_source(b))
    if not pairs:
        raise BadInput(f"{a!r} and {b!r}: no prompt has an image in both", "Draw the same prompts for both.")
    if all(first.file.resolve() == second.file.resolve() for first, second in pairs):
        raise BadInput(f"{a!r} and {b!r}: they are the same images", "Name two sources that differ.")
    rng = random.Random(f"sides/{seed}")
    return Study(
        a=a,
        b=b,
        seed=seed,
        secret=secrets.token_hex(16),
        pairs=tuple(
            Pair(
                key=f"pair-{number}",
                prompt=first.prompt,
                a=_shown(first),
                b=_shown(second),
                left=rng.choice(("a", "b")),
            )
            for number, (first, second) in enumerate(pairs, 1)
        ),
    )


def _shown(entry: Entry) -> Shown:
    return Shown(file=str(entry.file), sha256=digest_of(entry.file), seed=entry.seed)


def paired(first: Sequence[Entry], second: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Pair images of equal prompts: those of equal seeds, then of each prompt the others in their order."""
    pairs: list[tuple[Entry, Entry]] = []
    for prompt in dict.fromkeys(_key(entry.prompt) for entry in first):
        left = [entry for entry in first if _key(entry.prompt) == prompt]
        right = [entry for entry in second if _key(entry.prompt) == prompt]
        others = []
        for entry in left:
            match = next((each for each in right if entry.seed is not None and each.seed == entry.seed), None)
            if match:
                right.remove(match)
                pairs.append((entry, match))
            else:
                others.append(entry)
        pairs += zip(others, right, strict=False)
    return pairs


def _key(prompt: str) -> str:
    return " ".join(prompt.split())
