"""Captions for a library's images that have none, written by the MLLM of the settings and stored one by one.

Captions that people wrote stay: an image counts as without one if it has none, or only one that counts
after generated ones, such as the name of its folder. Each is stored as soon as it is paid for, so that an
interrupted command goes on where it was. Not covered: images that the index leaves out, and calls beside
each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pleinair.agent.context import ProvableModel
from pleinair.agent.state import MLLM_CALL, spending_limit
from pleinair.app.engines import Watch, build_backend, check
from pleinair.app.estimate.captions import CaptionEstimate, estimate_captions
from pleinair.app.estimate.estimate import RETRIED
from pleinair.app.index import open_indexed
from pleinair.app.libraries import OnProgress
from pleinair.app.paths import places
from pleinair.app.runs.prices import is_hosted, require_prices
from pleinair.app.settings import Settings
from pleinair.app.texts import counted
from pleinair.tools.crossmodal import write_caption
from pleinair.tools.deadline import OutOfTime, deadline, seconds_left
from pleinair.tools.images.reading import BadPicture
from pleinair.tools.registry import names
from pleinair.tools.retrieval.readers.generated import NAME, CaptionFile, GeneratedCaption, open_captions
from pleinair.tools.tracing import without_images
from pleinair.tools.types import BadInput, Limit, ModelFault, PleinairError, Refused, Usage, limit_reached

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from pleinair.tools.retrieval.dense import IndexRetriever
    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.library import Library

MOST_FAILURES = 20  # images in a row without a caption, after which the model is at fault and not the images
_SHOWN = 5  # failures listed; the others are counted


@dataclass(frozen=True)
class CaptionPlan:
    """Images to be captioned, each content once, and what that takes."""

    settings: Settings
    retriever: IndexRetriever
    images: Mapping[str, tuple[str, int]]  # id and bytes of the first file, by its SHA-256
    uncaptioned: int  # images without any caption
    weak: Mapping[str, int]  # images with a caption that a generated one replaces, by its reader
    estimate: CaptionEstimate

    def lines(self) -> Iterator[str]:
        """Yield the lines for a terminal that belong before those of the estimate."""
        reasons = [f"{counted(self.uncaptioned, 'image')} without a caption"] if self.uncaptioned else []
        reasons += [f"{counted(count, 'image')} with one by {name} only" for name, count in self.weak.items()]
        yield f"Captions by {self.settings.mllm.label} for {', '.join(reasons)}"
        if is_hosted(self.settings.mllm):
            yield "Each of these images is sent to the server of the MLLM, which is not this machine."


@dataclass
class CaptionReport:
    """What a command has done so far."""

    total: int
    captioned: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)  # id of an image, reason
    usage: Usage = field(default_factory=Usage)
    limit: Limit | None = None  # the field of the budget that stopped it
    in_a_row: int = 0  # failures since the last caption

    def lines(self, settings: Settings) -> Iterator[str]:
        """Yield the lines for a terminal."""
        spent = [counted(self.usage.mllm_calls, "MLLM call"), f"{self.usage.tokens:,} tokens"]
        spent += [f"{self.usage.usd:.4g} US dollars"] if self.usage.usd else []
        yield f"{self.captioned} of {counted(self.total, 'image')} captioned: {', '.join(spent)}"
        if self.failures:
            yield f"{counted(len(self.failures), 'image')} without a caption, left for the next time:"
        yield from (f"{id}: {reason}" for id, reason in self.failures[:_SHOWN])
        if len(self.failures) > _SHOWN:
            yield f"and {len(self.failures) - _SHOWN} more"
        if self.limit:
            yield f"Stopped: {limit_reached(self.limit, getattr(settings.budget, self.limit))}"
        if self.captioned + len(self.failures) < self.total:
            yield "The same command goes on with the others."


def _require_captions(settings: Settings) -> None:
    """Raise `BadInput` for settings with which no caption can be written, paid for or read."""
    check(settings)
    readers = settings.library.readers or names("reader")
    if NAME not in readers:
        raise BadInput(
            f"library.readers = {list(readers)}: without {NAME!r}, so the captions would not be read",
            f"Add {NAME!r} to it.",
        )
    for name in ("mllm_calls", "tokens", "usd", "seconds"):
        if getattr(settings.budget, name) == 0:
            raise BadInput(f"budget.{name} = 0: no caption could be written; must be more than 0")
    require_prices(settings, ("mllm",))
    build_backend("mllm", settings.mllm)


def plan_captions(settings: Settings, watch: Watch) -> CaptionPlan:
    """Update the index and list the images without a caption; no MLLM call is made.

    Raises as `_require_captions`, and `NoLibrary` without usable images.
    """
    from pleinair.tools.retrieval.dense import IndexRetriever

    _require_captions(settings)
    library, encoder, index = open_indexed(settings, places(settings.paths.home), watch)
    ids = _without_caption(library, index)
    images: dict[str, tuple[str, int]] = {}
    for id in ids:
        images.setdefault(index.sha256(id), (id, library.items[id].size))
    readers = [library.items[id].captioned_by for id in ids]
    return CaptionPlan(
        settings=settings,
        retriever=IndexRetriever(library, index, encoder),
        images=dict(sorted(images.items())),  # by chance, so that one folder's failures are not in a row
        uncaptioned=readers.count(""),
        weak={name: readers.count(name) for name in library.readers if name in readers},
        estimate=estimate_captions(settings, len(images)),
    )


def _without_caption(library: Library, index: Index) -> list[str]:
    """Return the usable images without a caption, or with one that counts after generated ones."""
    ranks = {name: rank for rank, name in enumerate(library.readers)}
    items = ((id, library.items[id]) for id in index.ids)
    return [id for id, item in items if not item.caption or ranks[item.captioned_by] > ranks[NAME]]


def write_captions(plan: CaptionPlan, report: CaptionReport, on_progress: OnProgress) -> None:
    """Caption the images of a plan within the budget, and record in `report` what was done.

    An image is skipped if it cannot be read, or if the model declines it or gives no usable answer.

    Args:
        plan: made by `plan_captions`.
        report: a new one; it is up to date even when this raises.
        on_progress: receives images done and in total; may raise to stop.

    Raises:
        BadInput: another process writes captions.
        PleinairError: the model cannot be called, takes no images, or fails `MOST_FAILURES` times in a row;
            or a caption cannot be stored.
    """
    from langchain_core.runnables import RunnableLambda

    settings, home = plan.settings, places(plan.settings.paths.home)
    model = build_backend("mllm", settings.mllm)
    config = None if settings.tracing.images else without_images(None)
    seconds = settings.budget.seconds
    with open_captions(home.captions) as file, deadline(math.inf if seconds is None else seconds):

        def work(images: int) -> int:
            _write_all(plan, report, model, file, on_progress)
            return report.captioned

        RunnableLambda(work, name="captions").invoke(report.total, config)


def _write_all(
    plan: CaptionPlan, report: CaptionReport, model: Any, file: CaptionFile, on_progress: OnProgress
) -> None:
    try:
        if isinstance(model, ProvableModel):
            report.usage = model.prove().model_copy(update={"mllm_calls": 0})
        for done, (sha256, (id, size)) in enumerate(plan.images.items()):
            on_progress(done, report.total)
            report.limit = spending_limit(plan.settings.budget, report.usage, MLLM_CALL)
            report.limit = report.limit or ("seconds" if seconds_left() <= 0 else None)
            if report.limit:
                return
            if caption := _caption(plan, report, model, id):
                name = str(plan.settings.mllm.arguments.get("model") or plan.settings.mllm.label)
                file.add(GeneratedCaption(sha256, size, caption, name))
                report.captioned += 1
        on_progress(report.total, report.total)
    except OutOfTime:
        report.limit = "seconds"


def _caption(plan: CaptionPlan, report: CaptionReport, model: BaseChatModel, id: str) -> str:
    """Return an image's caption, "" if there is none; raise what the next image would not change."""
    from pleinair.tools.storage.artifacts import encode_png

    most = plan.settings.budget.mllm_calls
    calls = RETRIED if most is None else min(RETRIED, most - report.usage.mllm_calls)
    try:
        caption, usage = write_caption(encode_png(plan.retriever.open(id)), model=model, calls=calls)
    except PleinairError as error:
        report.usage = Usage.total([report.usage, error.spent])
        if not isinstance(error, BadPicture | Refused | ModelFault):
            raise
        report.failures.append((id, error.message))
        report.in_a_row += not isinstance(error, BadPicture)
        if report.in_a_row >= MOST_FAILURES:
            raise PleinairError(
                f"The model gave no caption for {report.in_a_row} images in a row; the last: {error.message}",
                "Check it with `pleinair doctor --mllm`, or choose another one.",
            ) from error
        return ""
    report.usage, report.in_a_row = Usage.total([report.usage, usage]), 0
    return caption
