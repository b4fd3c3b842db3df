"""Share of a library that one of several processes or machines embeds.

A share is a part of the sorted ids without gaps, so that folders and row groups stay together, and all shares
cost about the same by the files' sizes. It has whole blocks of `BATCH` ids, so that its batches are those of
one process, and its vectors too, to the bit. It depends on the ids and sizes alone: not on which files can be
read, nor on the order in which they are listed. Where a machine lists a few files more or less, its shares
have other blocks from there on, and the index run that joins them embeds what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pleinair.tools.callbacks import no_callback
from pleinair.tools.retrieval.build import BATCH, BeingBuilt, stored_vectors
from pleinair.tools.retrieval.embedding import embed_library
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import Skipped
from pleinair.tools.retrieval.shards import Embedded, require_alike, write_shard
from pleinair.tools.storage.files import explain, sweep_parts
from pleinair.tools.types import BadInput, Encoder

_BYTES = 2**20  # of a file whose decoding costs about as much as its embedding; for the balance only


@dataclass(frozen=True)
class Share:
    """Share `number` of `count`, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Return the share that `I/N` names; raise `BadInput` unless 1 ≤ I ≤ N."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
        share = cls(*map(int, match.groups())) if match else None
        if share is None or not 1 <= share.number <= share.count:
            accepted = "I/N, such as 1/4 for the first of four, to 4/4 for the last"
            raise BadInput(f"--shard {text[:40]!r}: accepted: {accepted}")
        return share

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, library: Library, block: int = BATCH) -> Library:
        """Return the part of a library that is in this share; all shares have each block of ids once.

        Of a library with fewer blocks than shares some shares are empty.
        """
        ids, costs = list[str](), list[int]()
        for place, (id, item) in enumerate(library.items.items()):
            if place % block == 0:
                costs.append(0)
            costs[-1] += item.size + _BYTES
            ids.append(id)
        total, before, chosen = sum(costs), 0, list[str]()
        for place, cost in enumerate(costs):
            if self.count * (2 * before + cost) // (2 * total) == self.number - 1:
                chosen += ids[place * block : (place + 1) * block]
            before += cost
        return library.part(chosen, f"{self.number}-of-{self.count}")


def embed_share(
    library: Library,
    encoder: Encoder,
    share: Share,
    out: Path,
    index: Path,
    on_progress: Callable[[int, int], None] = no_callback,
    *,
    batch_size: int = BATCH,
) -> tuple[int, int]:
    """Write the vectors of a share into shards in `out`; return the numbers of images with and without one.

    Only images without a vector in `out` or in the index in the folder `index` are embedded, so that a killed
    call goes on where it was; `on_progress(done, total)` counts images and may raise to stop.

    Raises:
        BadInput: `out` has shards of another encoder, or is no folder.
        BeingBuilt: another process embeds this share into `out`.
        DiskFull: a batch does not fit; those before stay.
    """
    part = share.of(library, batch_size)
    stored = _stored(out, encoder.id, library.max_pixels)
    with _locked(out, share):
        sweep_parts(out)
        embedded = stored_vectors(part, encoder, index)
        embedded.join(stored, part.items)
        if part.items:
            embed_library(part, encoder, embedded, out, batch_size=batch_size, on_progress=on_progress)
        _complete(part, embedded, out, encoder.id)
    skipped = sum(isinstance(embedded.files[id], Skipped) for id in part.items)
    return len(part.items) - skipped, skipped


def _stored(out: Path, encoder_id: str, max_pixels: int) -> Embedded:
    """Return what the shards in a folder have."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {str(out)!r}: it is a file; must be a folder")
    stored = Embedded()
    for _, shard in require_alike(out, encoder_id):
        if shard:
            stored.add(shard, max_pixels)
    return stored


@contextmanager
def _locked(out: Path, share: Share) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / f".{share.number}-of-{share.count}.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise BeingBuilt(f"Another process embeds shard {share} into {out}.", "Wait for it.") from None
    except OSError as error:
        raise explain(error, out) from error
    try:
        yield
    finally:
        lock.release()


def _complete(part: Library, embedded: Embedded, out: Path, encoder_id: str) -> None:
    """Write shards of the files whose vectors were known from elsewhere, and of those that are skipped."""
    stored = _stored(out, encoder_id, part.max_pixels)
    files = [embedded.files[item.id] for item in part.items.values() if stored.file(item) is None]
    files = [file for file in files if file.sha256]
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        write_shard(out, encoder_id, part.max_pixels, batch, embedded.vectors)
