"""Study: pairs of images of equal prompts, blind and in random order, in a folder of its own.

`study.json` is written once, and has which image is on which side; nothing of it but the prompt is in a page.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from pleinair.app.comparison.sources import Entry, read_source, source_name
from pleinair.app.texts import counted
from pleinair.tools.callbacks import no_callback
from pleinair.tools.images.reading import BadPicture, file_bytes, read_picture
from pleinair.tools.storage.files import checked_path, write_whole
from pleinair.tools.storage.folder import read_file
from pleinair.tools.types import BadInput, Value

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "study.json"
Side = Literal["left", "right"]
Source = Literal["a", "b"]
SIDES: tuple[Side, ...] = ("left", "right")


class Shown(Value):
    """Image of a pair."""

    file: str  # absolute
    sha256: str  # of the file
    width: int  # pixels
    height: int
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
    a: str  # the source: a folder's path, or runs
    b: str
    unpaired: tuple[int, int] = (0, 0)  # images of A and of B that have no partner
    identical: int = 0  # pairs of equal pixels, which are not asked about
    seed: int  # of the sides and of the order
    secret: str  # from which the names of images in addresses are made
    pairs: tuple[Pair, ...]

    @cached_property
    def by_key(self) -> dict[str, Pair]:
        """Return the pairs by their keys."""
        return {pair.key: pair for pair in self.pairs}

    @cached_property
    def images(self) -> dict[str, Shown]:
        """Return the images by their names in addresses."""
        return {self.image_name(pair, side): shown_at(pair, side) for pair in self.pairs for side in SIDES}

    def image_name(self, pair: Pair, side: Side) -> str:
        """Return the name of an image in addresses, from which neither file nor source can be known."""
        return hashlib.sha256(f"{self.secret}/{pair.key}/{side}".encode()).hexdigest()[:32]

    def remarks(self) -> Iterator[str]:
        """Yield what is left out, in lines for a terminal."""
        a, b = self.unpaired
        if a or b:
            yield f"Left out, as the other source has no image of the same prompt: {a} of A, {b} of B"
        if self.identical:
            yield f"Left out, as the two images are equal: {counted(self.identical, 'pair')}"

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


def open_study(
    out: str | Path,
    a: str = "",
    b: str = "",
    seed: int | None = None,
    on_progress: Callable[[int, int], None] = no_callback,
) -> Study:
    """Return the study of a folder, which is written for two sources if there is none.

    Args:
        out: the folder.
        a: the first source, as of `read_source`; "" for the study that is there.
        b: the second source.
        seed: of the sides and of the order; None for that of the study, at random for a new one.
        on_progress: called with the pairs whose images are read, of how many.

    Raises:
        BadInput: the folder is a file or a source, or has a study of other sources; or none, and the sources
            do not make one.
    """
    folder = checked_path(str(out), "--out").absolute()
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {str(folder)!r}: it is a file; must be a folder")
    stored, a, b = _read_study(folder), source_name(a), source_name(b)
    if stored is None:
        _require_two(folder, a, b)
        stored = _make_study(a, b, seed, on_progress)
        write_whole(folder / FILE, stored.model_dump_json(indent=1).encode())
    elif ((a or b) and (a, b) != (stored.a, stored.b)) or seed not in (None, stored.seed):
        raise BadInput(
            f"{folder}: it has a study of {stored.a!r} and {stored.b!r}, seed {stored.seed}",
            "Choose another folder by --out, or leave out A and B to go on with it.",
        )
    return stored


def _require_two(folder: Path, a: str, b: str) -> None:
    """Raise `BadInput` unless there are two sources, of which the folder of the study is no part."""
    if not (a or b):
        raise BadInput(f"{folder}: there is no study in it", "Name two folders or runs, A and B.")
    if not (a and b):
        raise BadInput(f"{a or b!r}: nothing to compare it with", "Name two folders or runs, A and B.")
    for source in (a, b):
        if os.path.isdir(source) and folder.resolve().is_relative_to(Path(source).resolve()):
            raise BadInput(f"--out {str(folder)!r}: it is in the source {source!r}", "Choose another folder.")


def _read_study(folder: Path) -> Study | None:
    """Return the study of a folder, None where there is none; raises `BadInput` for a damaged one."""
    path = folder / FILE
    try:
        return Study.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise BadInput(f"{path}: it is no study that this version can read") from error


def _make_study(
    a: str,
    b: str,
    seed: int | None = None,
    on_progress: Callable[[int, int], None] = no_callback,
) -> Study:
    """Pair the images of two sources.

    Pairs of equal pixels are counted and left out: all that can be said about them is a tie.

    Raises `BadInput` if they share no prompt, if all pairs are equal, or if an image cannot be read.
    """
    first, second = read_source(a), read_source(b)
    pairs = paired(first, second)
    if not pairs:
        raise BadInput(f"{a!r} and {b!r}: no prompt has an image in both", "Draw the same prompts for both.")
    differ = list(_different(pairs, on_progress))
    if not differ:
        raise BadInput(f"{a!r} and {b!r}: they are the same images", "Name two sources that differ.")
    seed = secrets.randbelow(2**32) if seed is None else seed
    lefts = _lefts(len(differ), random.Random(f"sides/{seed}"))
    return Study(
        a=a,
        b=b,
        unpaired=(len(first) - len(pairs), len(second) - len(pairs)),
        identical=len(pairs) - len(differ),
        seed=seed,
        secret=secrets.token_hex(16),
        pairs=tuple(
            Pair(key=f"pair-{number}", prompt=prompt, a=of_a, b=of_b, left=lefts[number - 1])
            for number, (prompt, of_a, of_b) in enumerate(differ, 1)
        ),
    )


def _lefts(count: int, rng: random.Random) -> list[Source]:
    """Return the sources on the left in random order, one as often as the other, or once more."""
    sources: list[Source] = ["a", "b"]
    rng.shuffle(sources)
    lefts = [sources[number % 2] for number in range(count)]
    rng.shuffle(lefts)
    return lefts


def _different(
    pairs: Sequence[tuple[Entry, Entry]], on_progress: Callable[[int, int], None]
) -> Iterator[tuple[str, Shown, Shown]]:
    """Yield the pairs whose pixels differ; raises `BadInput` for an image that cannot be shown."""
    for number, (first, second) in enumerate(pairs):
        on_progress(number, len(pairs))
        (a, pixels_a), (b, pixels_b) = _shown(first), _shown(second)
        if pixels_a != pixels_b:
            yield first.prompt, a, b


def _shown(entry: Entry) -> tuple[Shown, Image]:
    """Return what a study has of an image, and its pixels."""
    try:
        data = file_bytes((read_file(entry.file) or b"") if "://" in entry.file else entry.file)
        image = read_picture(data)
    except BadPicture as error:
        raise BadInput(f"{entry.file}: {error.message}", "Replace the image, or take it away.") from error
    digest = hashlib.sha256(data).hexdigest()
    shown = Shown(file=entry.file, sha256=digest, width=image.width, height=image.height, seed=entry.seed)
    return shown, image


def paired(first: Sequence[Entry], second: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Pair images of equal prompts: those of equal seeds, then of each prompt the others in their order."""
    pairs: list[tuple[Entry, Entry]] = []
    others = _by_prompt(second)
    for prompt, left in _by_prompt(first).items():
        right, rest = others.get(prompt, []), []
        for entry in left:
            match = next((each for each in right if entry.seed is not None and each.seed == entry.seed), None)
            if match:
                right.remove(match)
                pairs.append((entry, match))
            else:
                rest.append(entry)
        pairs += zip(rest, right, strict=False)
    return pairs


def _by_prompt(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    grouped: dict[str, list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(" ".join(entry.prompt.split()), []).append(entry)
    return grouped
