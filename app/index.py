"""Indexing of a library before its first use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING

from pleinair.app.engines import Watch, build_encoder, check, with_second
from pleinair.app.libraries import OnProgress, build_folder, fresh_index, index_fault, read_library
from pleinair.app.paths import Paths
from pleinair.app.settings import POCKET, Settings, home_of
from pleinair.app.texts import counted
from pleinair.tools.callbacks import no_callback
from pleinair.tools.data_sets.recognise import layouts_of
from pleinair.tools.retrieval.compose import AUTO
from pleinair.tools.retrieval.library import Library, raw_files
from pleinair.tools.retrieval.walk import RAW
from pleinair.tools.storage.files import checked_path
from pleinair.tools.storage.postgres import without_password
from pleinair.tools.types import BadInput, Encoder

if TYPE_CHECKING:
    from pleinair.tools.retrieval.build import Embed
    from pleinair.tools.retrieval.calibrate import Calibration
    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.readers.folder import Problem
    from pleinair.tools.retrieval.shards import Embedded

SHOWN = 10  # problems of each kind that are listed; the others are counted
_OF_ONE_FILE = 3  # problems of a table that are listed among them


def unwatched(title: str) -> AbstractContextManager[OnProgress]:
    """Return a progress bar that shows nothing."""
    return nullcontext(no_callback)


def bring_up_to_date(
    settings: Settings,
    watch: Watch = unwatched,
    *,
    calibrated: bool = False,
    every_problem: bool = False,
    merge: Sequence[Path] = (),
) -> Iterator[str]:
    """Index new and changed images; yield lines about the index and the files that could not be used.

    `watch` shows the progress of each part; no line comes meanwhile. With `calibrated` also calibrate the
    thresholds by the captions, without setting one; with `every_problem` list all that are recorded; vectors
    in shards in the folders `merge` are not computed again. A shared library is published. Raises
    `BadInput` if no image is usable, no caption for a suggestion, or shards do not fit, `PleinairError` if
    the disk is full.
    """
    from pleinair.tools.retrieval.calibrate import store_threshold
    from pleinair.tools.retrieval.dense import IndexRetriever

    check(settings)
    home = home_of(settings)
    unusable, embed = index_fault(build_folder(settings, home)), _embedding_of(settings)
    library, encoder = _open(settings, home, watch)
    joined = None
    if merge:
        joined, lines = _joined(settings, home, library, encoder, merge)
        yield from lines
    with watch("Indexing images") as on_index:
        index = fresh_index(settings, home, library, encoder, on_index, joined, embed)
    if unusable:
        yield f"The index was built anew. {unusable}"
    are = "is" if len(index) == 1 else "are"
    others = f"; {len(index.skipped)} cannot be used" if index.skipped else ""
    yield f"{counted(len(index), 'image')} of {library.title} {are} indexed under {encoder.id}{others}"
    yield from _describe(library)
    yield from _problems(library, index, every_problem)
    if calibrated:
        dense = IndexRetriever(library, index, encoder, home.cache / "texts.sqlite")
        calibration, _ = store_threshold(dense)
        yield from _of_thresholds(calibration)
    yield from _publish(settings, home, library, encoder, index, watch)


def _publish(
    settings: Settings, home: Paths, library: Library, encoder: Encoder, index: Index, watch: Watch
) -> Iterator[str]:
    """Publish the index of a shared library with its threshold, and that of a second encoder."""
    from pleinair.tools.retrieval.calibrate import open_threshold
    from pleinair.tools.retrieval.dense import IndexRetriever
    from pleinair.tools.retrieval.publication import publish

    if not home.vectors:
        return
    indexes = {build_folder(settings, home).name: index}
    if settings.retrieval.threshold == AUTO:
        with suppress(BadInput):  # of a library with too few captions, which a run reports
            open_threshold(IndexRetriever(library, index, encoder, home.cache / "texts.sqlite"))
    if settings.retrieval.second:
        second = with_second(settings, settings.retrieval.second)
        with watch("Indexing images by the second encoder") as on_index:
            name = build_folder(second, home).name
            indexes[name] = fresh_index(
                second, home, library, build_encoder(second), on_index, embed=_embedding_of(second)
            )
    for name, each in indexes.items():
        with watch("Publishing vectors") as on_progress:
            approximate = settings.cluster.hnsw
            publication = publish(home.vectors, name, each, approximate=approximate, on_progress=on_progress)
        where = without_password(home.vectors)
        yield f"{counted(publication.images, 'vector')} of {each.manifest.encoder} are published in {where}"


def _embedding_of(settings: Settings) -> Embed | None:
    """Return what computes vectors on the cluster of the settings, None where they have none.

    Raise `BadInput` if no cluster answers.
    """
    cluster = settings.cluster
    if not cluster.ray:
        return None
    from pleinair.tools.cluster.ray_data import EncoderChoice, RayEmbedding
    from pleinair.tools.cluster.ray_link import require_cluster

    require_cluster(cluster.ray)
    encoder = EncoderChoice(settings.encoder.backend, settings.encoder.arguments)
    return RayEmbedding(cluster.ray, encoder, cluster.index_actors, cluster.index_cpus, cluster.index_gpus)


def verify_index(settings: Settings, watch: Watch = unwatched) -> Iterator[str]:
    """Compare every byte of the stored index with its checksums, and yield a line about it.

    Nothing is built or changed. Raises `BadInput` for a missing or damaged index, with what to do.
    """
    from pleinair.tools.retrieval.manifest import load_manifest, verify_files

    check(settings)
    folder = build_folder(settings, home_of(settings))
    with watch("Comparing the index with its checksums") as on_progress:
        size = verify_files(folder, on_progress)
    manifest = load_manifest(folder)
    count = counted(manifest.count, "image")
    yield f"The index of {count} in {folder} is as it was written: {size:,} bytes have their checksums"


def open_indexed(settings: Settings, home: Paths, watch: Watch) -> tuple[Library, Encoder, Index]:
    """Open the library with its index, which is brought up to date; raise as `bring_up_to_date`."""
    library, encoder = _open(settings, home, watch)
    with watch("Indexing images") as on_index:
        return library, encoder, fresh_index(settings, home, library, encoder, on_index)


def _open(settings: Settings, home: Paths, watch: Watch) -> tuple[Library, Encoder]:
    with watch("Reading texts in images") as on_read:
        library = read_library(settings, home, on_read)
    return library, build_encoder(settings)


def embed_shard(
    settings: Settings, shard: str, out: str | None = None, watch: Watch = unwatched
) -> Iterator[str]:
    """Write the vectors of one of several shares of the library into `out`; yield lines about them.

    Args:
        settings: with the library and the encoder.
        shard: `I/N`, such as "1/4" for the first of four shares.
        out: a folder, which several processes and machines may share; that of the index in the home folder
            if omitted, where the next index run takes them.
        watch: shows the progress of each part.

    Raises:
        BadInput: the share or the folder cannot be used, or the folder has shards of another encoder.
        PleinairError: the disk is full.
    """
    from pleinair.tools.retrieval.build import SHARES
    from pleinair.tools.retrieval.shares import Share, embed_share

    share = Share.parse(shard)
    check(settings)
    home = home_of(settings)
    index = build_folder(settings, home)
    folder = index / SHARES if out is None else checked_path(out, "--out").absolute()
    library, encoder = _open(settings, home, watch)
    with watch(f"Embedding shard {share}") as on_index:
        usable, skipped = embed_share(library, encoder, share, folder, index, on_index)
    others = f"; {skipped} cannot be used" if skipped else ""
    of_all = f"{usable} of {counted(len(library.items), 'image')} of {library.title}"
    yield f"Shard {share} is finished: vectors of {of_all} are in {folder}{others}"
    names = " ".join(map(quote, settings.library.folders or (POCKET,)))
    merge = "" if out is None else f" --merge {quote(str(folder))}"
    yield f"`pleinair index {names}{merge}` joins all {share.count} shards when they are finished"


def _joined(
    settings: Settings, home: Paths, library: Library, encoder: Encoder, folders: Sequence[Path]
) -> tuple[Embedded, list[str]]:
    """Return the vectors of shards in folders, and lines about what they have; raise as `join_shards`."""
    from pleinair.tools.retrieval.build import stored_vectors
    from pleinair.tools.retrieval.shards import join_shards

    joined, damaged = join_shards(folders, encoder.id, library.items, library.max_pixels)
    lines = [f"{path} is damaged and left out" for path in damaged[:SHOWN]]
    if (more := len(damaged) - SHOWN) > 0:
        lines.append(f"and {more} more damaged shards")
    stored = stored_vectors(library, encoder, build_folder(settings, home), joined)
    total = len(library.items)
    done = sum(stored.has(item) for item in library.items.values())
    rest = f"; embedding the other {total - done}" if done < total else ""
    return joined, [*lines, f"{done} of {counted(total, 'image')} have vectors{rest}"]


def _of_data_sets(library: Library) -> Iterator[str]:
    """Yield lines about each folder in the layout of a published data set, whose lists name its classes."""
    for folder in library.folders:
        if titles := " and ".join(layout.title for layout in layouts_of(folder)):
            yield f"{folder} seems to be {titles}: `python -m pleinair.evals data` reads its own lists, and "
            yield "    writes a library with its class names, captions and credits (--library)"


def _describe(library: Library) -> Iterator[str]:
    """Yield lines about where a library's captions and credits come from, and what was left out."""
    for source in library.sources:
        facts = [
            counted(source.captions, "caption") if source.captions else "",
            f"{counted(source.credits, 'image')} with credits" if source.credits else "",
            f"{counted(source.boxes, 'image')} with boxes" if source.boxes else "",
            f"{counted(source.tags, 'image')} with tags" if source.tags else "",
            counted(source.problems, "problem") if source.problems else "",
        ]
        models = {item.caption_model for item in library.items.values() if item.captioned_by == source.reader}
        title = " by ".join(filter(None, (source.reader, ", ".join(sorted(models - {""})))))
        yield f"{title}: {', '.join(fact for fact in facts if fact)}"
    if without := sum(not item.caption for item in library.items.values()):
        yield f"{counted(without, 'image')} without a caption"
    if library.left_out:
        count = counted(library.left_out_count, "system or hidden item")
        yield f"{count} left out: {_some(library.left_out)}"
    if others := {ending: count for ending, count in library.others.items() if ending not in RAW}:
        yield f"{counted(sum(others.values()), 'file')} of other kinds left out: {_some(others)}"
    if raw := raw_files(library):
        yield f"{counted(raw, 'file')} in raw formats of cameras cannot be read: export them as JPEG"
    yield from _of_data_sets(library)


def _problems(library: Library, index: Index, every: bool) -> Iterator[str]:
    """Yield images that cannot be used, what readers did not understand, then notes on used images."""
    skipped = [f"{file.id}: {file.reason}." for file in index.skipped]
    notes = [f"{file.id}: {note}." for file in index.noted for note in file.notes]
    if every:
        lines = [*skipped, *map(str, library.problems), *notes]
    else:
        lines = [*skipped[:SHOWN], *map(str, islice(_varied(library.problems), SHOWN)), *notes[:SHOWN]]
    yield from lines
    if more := len(skipped) + library.problem_count + len(notes) - len(lines):
        yield f"and {counted(more, 'more problem')}{'' if every else '; list all with --problems'}"


def _varied(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield the first problems of each file, so that those of one table hide no others."""
    counts: Counter[str] = Counter()
    for problem in problems:
        counts[problem.file] += 1
        if counts[problem.file] <= _OF_ONE_FILE:
            yield problem


def _some(paths: Iterable[str]) -> str:
    """Return the last parts of paths, each once, and only so many."""
    names = sorted({PurePosixPath(path).name for path in paths})
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _of_thresholds(calibration: Calibration) -> Iterator[str]:
    """Yield a line about each threshold, the suggested one last."""
    flat, relative = calibration.flat, calibration.relative
    choices = {f"{flat.threshold:.3f}": flat, '"auto"': relative}
    for value, rates in sorted(choices.items(), key=lambda choice: choice[1].gain):
        effect = (
            f"{rates.recall:.0%} of {counted(calibration.captions, 'caption')} find an image of their own on "
            f"or over it, {rates.false_accepts:.0%} an unrelated one"
        )
        yield f"retrieval.threshold = {value}: {effect}"
    if not (flat.separates or relative.separates):
        yield "Neither of these thresholds separates related from unrelated images."
