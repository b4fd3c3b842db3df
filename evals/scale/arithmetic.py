"""Costs of 10⁸ images, from what an image more costs by measurement.

An image more is the difference of the two largest sizes that were measured, divided by that of their images,
so that fixed costs drop out; queries and embedding are means at the largest size. All of it assumes that they
go on growing in proportion: that nothing is moved to another disk or machine, and that what is mapped into
memory stays there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pleinair.tools.retrieval.coded_search import code_bytes

MANY = 100_000_000  # images
CODES = "codes"  # on disk, whose bytes follow from the numbers of a vector
HALF = 2  # bytes of a number in half precision

Figures = Mapping[str, Any]  # JSON of the benchmarks, by the name of their file


QUERY_BY_CODES = "a query by codes, one core"
QUERY_IN_BATCH = "a query of 32 by codes, one core"
ANONYMOUS = "memory: anonymous, after a search by words and vectors"
PEAK = "memory: peak of writing the index at once"
FIRST_SEARCH = "a first search of a rare concept by words and vectors"
WRITING = "writing the index, without embedding"
EMBEDDING = "embedding, 1-megapixel JPEGs, ours"
# what is thought bearable, in the cost's unit
BEARABLE = {
    FIRST_SEARCH: 1.0,
    QUERY_BY_CODES: 0.1,
    QUERY_IN_BATCH: 0.1,
    ANONYMOUS: 8e9,
    PEAK: 24e9,
    WRITING: 3600.0,
    EMBEDDING: 86_400.0,
}


class Projection(NamedTuple):
    """Cost of `MANY` images."""

    subject: str
    each: float  # of an image more
    unit: str  # B, or s
    source: str  # where `each` is from

    @property
    def total(self) -> float:
        """The cost of all."""
        return self.each * MANY


def each_more(rows: Sequence[Figures], field: str) -> float:
    """Return what an image more costs between the two largest sizes; of one size, the mean."""
    last = rows[-1]
    before = rows[-2] if len(rows) > 1 else {"images": 0, field: 0}
    return float((last[field] - before[field]) / (last["images"] - before["images"]))


def project(figures: Figures) -> Iterator[Projection]:
    """Yield the costs of what was measured."""
    if "library" in figures:
        yield from _library(figures["library"])
    if "search" in figures:
        yield from _search(figures["search"]["sizes"])
    embedding = largest_embedding(figures)
    if embedding:
        for way in ("build_index", "open_clip, float32"):
            each = embedding["seconds"][way][0] / embedding["images"]
            subject = EMBEDDING if way == "build_index" else f"embedding, {way}"
            yield Projection(subject, each, "s", f"{embedding['images']} images, ViT-B/32, clock")


def _library(library: Figures) -> Iterator[Projection]:
    rows, dim = library["sizes"], library["dim"]
    flat = [{"images": row["images"], **row["bytes"]} for row in rows]
    source = _between(rows)
    disk = {kind: each_more(flat, kind) for kind in flat[-1] if kind != "images"} | {CODES: code_bytes(dim)}
    for kind, each in disk.items():
        yield Projection(f"disk: {kind}", each, "B", f"{dim} numbers" if kind == CODES else source)
    yield Projection("disk: the index, all of these", sum(disk.values()), "B", source)
    for subject, field in (
        (ANONYMOUS, "search_anonymous_mb"),
        ("memory: resident, mapped files included, after it", "search_mb"),
        (PEAK, "write_peak_mb"),
    ):
        yield Projection(subject, each_more(rows, field) * 2**20, "B", source)
    yield Projection(
        "GPU memory: exact vectors in half precision", dim * HALF, "B", f"{dim} numbers, {HALF} B each"
    )
    yield Projection(WRITING, each_more(rows, "write_s"), "s", source)
    yield Projection(FIRST_SEARCH, each_more(rows, "first_search_ms") / 1000, "s", source)


def _search(rows: Sequence[Figures]) -> Iterator[Projection]:
    row = rows[-1]
    for subject, field, queries in (
        (QUERY_BY_CODES, "ours_1_ms", 1),
        (QUERY_IN_BATCH, "ours_32_ms", 32),
        ("a query, FAISS's flat index, one core", "flat_1_ms", 1),
        ("a query of 32, FAISS's flat index, one core", "flat_32_ms", 32),
    ):
        each = row[field] / row["vectors"] / queries / 1000
        yield Projection(subject, each, "s", f"{row['vectors']:,}")


def largest_embedding(figures: Figures) -> Figures | None:
    """Return the figures of embedding with the most images."""
    runs = [value for name, value in figures.items() if name.startswith("embedding-")]
    return max(runs, key=lambda run: run["images"], default=None)


def _between(rows: Sequence[Figures]) -> str:
    """Return the sizes that `each_more` takes, as words."""
    return " to ".join(f"{row['images']:,}" for row in rows[-2:])


def amount(value: float, unit: str) -> str:
    """Format bytes or seconds with three digits and the unit that suits them; powers of 1,000."""
    steps = _BYTES if unit == "B" else _SECONDS
    factor, name = next((pair for pair in steps if abs(value) >= pair[0]), steps[-1])
    return f"{value / factor:,.3g} {name}" if value < 999.5 * factor else f"{value / factor:,.0f} {name}"


_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_SECONDS = (
    (86_400.0, "days"),
    (3600.0, "h"),
    (60.0, "min"),
    (1.0, "s"),
    (1e-3, "ms"),
    (1e-6, "µs"),
    (1e-9, "ns"),
)
