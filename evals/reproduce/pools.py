"""Libraries that the prompts of a data set search: its own images, a generic folder, or a part of that.

A pool never holds an image that is scored against: those are of another split, or hidden from the one prompt
that they belong to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.evals.reproduce.plan import GENERIC, Queries, Subject
from pleinair.evals.reproduce.records import key_of
from pleinair.tools.callbacks import no_callback
from pleinair.tools.data_sets.data_set import Contents, DataSet, Example, Layout
from pleinair.tools.data_sets.library import write_library
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.retrieval.library import Library

OnProgress = Callable[[int, int], None]
_GENERIC = Layout(  # of a library, which says itself where each image is from
    name=GENERIC.kind,
    title="",
    size="",
    license="",
    source="",
    needs=(),
    find=lambda place: "",
    read=lambda place: Contents((), ()),
)


def digest_of(pool: Iterable[Example]) -> str:
    """Return sixteen digits of what a pool holds."""
    return key_of([(example.path, example.class_name, example.captions) for example in pool])


def domain_folder(data_set: DataSet, test: Queries, out: Path) -> Path:
    """Return where a data set's own pool is."""
    return out / "pools" / f"{data_set.layout.name}-{digest_of(test.pool)}"


def write_domain(data_set: DataSet, test: Queries, out: Path, on_progress: OnProgress = no_callback) -> None:
    """Write a data set's own pool.

    Raises:
        BadInput: the pool has an image that is scored against.
    """
    require_apart(data_set, test.subjects, test.pool)
    write_library(data_set, test.pool, domain_folder(data_set, test, out), on_progress)


def require_apart(data_set: DataSet, subjects: Iterable[Subject], pool: Sequence[Example]) -> None:
    """Raise `BadInput` if an image that is scored against is in the pool and not hidden from its prompt."""
    paths = {data_set.file(example): example.path for example in pool}
    for subject in subjects:
        for truth in subject.truth:
            if (path := paths.get(truth)) and path != subject.left_out:
                raise BadInput(
                    f"{path} is scored against for {subject.prompt!r}, and is in the pool that it searches.",
                    "Keep the two apart: the score would be that of the image itself.",
                )


def generic_folder(folder: Path, size: int, out: Path, seed: int) -> Path:
    """Return where a generic library is, or its part of `size` images; 0 is all of it."""
    return out / "pools" / f"{GENERIC.kind}-{size}-{key_of(str(folder.absolute()), seed)}" if size else folder


def write_generic(folder: Path, size: int, out: Path, seed: int, truth: Collection[Path]) -> None:
    """Write a part of a generic library; smaller parts are inside of larger ones.

    Raises:
        BadInput: it has fewer images, or one of those that are scored against.
    """
    from pleinair.tools.retrieval.library import Library

    library = Library.open(folder)
    if size > len(library.items):
        raise BadInput(f"--pool-sizes {size}: {folder} has {len(library.items)} images.")
    _require_others(folder, library, truth)
    if size:
        chosen = _sample(library, size, seed)
        source = DataSet(_GENERIC, folder, (), tuple(chosen))
        write_library(source, chosen, generic_folder(folder, size, out, seed))


def _require_others(folder: Path, library: Library, truth: Collection[Path]) -> None:
    """Raise `BadInput` if a library has the same file as one that is scored against."""
    sizes: dict[int, set[bytes]] = {}
    for path in truth:
        sizes.setdefault(path.stat().st_size, set()).add(sha256(path.read_bytes()).digest())
    for item in library.items.values():
        if item.size in sizes and sha256((folder / item.id).read_bytes()).digest() in sizes[item.size]:
            raise BadInput(
                f"{folder}/{item.id} is an image that is scored against.",
                "Remove it from the generic pool: the score would be that of the image itself.",
            )


def _sample(library: Library, size: int, seed: int) -> list[Example]:
    items = [library.items[id] for id in sorted(library.items)]
    random.Random(seed).shuffle(items)
    captions = [tuple(filter(None, item.caption.splitlines())) for item in items[:size]]
    return [
        Example(
            item.id,
            "",
            texts,
            facts={"license": item.license, "source": item.source, "author": item.author},
        )
        for item, texts in zip(items[:size], captions, strict=True)
    ]
