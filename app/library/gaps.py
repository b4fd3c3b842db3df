"""The gap report: what retrieval abstained on in all runs, by concept."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from pleinair.app.library.opened import OpenLibrary
from pleinair.app.library.retrievals import Abstention, Retrieved
from pleinair.tools.types import BadInput, Value

MAX_DATE = 40  # characters
_ARTICLES = ("a ", "an ", "the ")


class Gap(Value):
    """Concept for which the library had no image."""

    concept: str  # as the newest run has it
    query: str  # for which the newest run searched
    times: int  # retrievals that abstained
    runs: tuple[str, ...]  # newest first
    best: float | None  # the best score of all its hits, a cosine; None: no hits with one
    threshold: float | None  # of the newest run
    last: datetime  # when the newest run ended
    covered: bool | None = None  # whether the library has an image by now; None: not looked for


def name_of(concept: str) -> str:
    """Return a concept's name without case, article and further spaces."""
    name = " ".join(unicodedata.normalize("NFKC", concept).casefold().split())
    return next((name.removeprefix(article) for article in _ARTICLES if name.startswith(article)), name)


def gaps_of(runs: Iterable[Retrieved], since: datetime | None = None) -> list[Gap]:
    """Return the gaps of runs that ended at `since` or later: those of the most runs first.

    `runs` are in their order, the newest first.
    """
    groups: dict[str, list[tuple[Retrieved, Abstention]]] = defaultdict(list)
    for run in runs:
        if since is None or run.ended >= since.timestamp():
            for abstention in run.abstentions:
                groups[name_of(abstention.concept)].append((run, abstention))
    gaps = map(_gap, groups.values())
    return sorted(gaps, key=lambda gap: (-len(gap.runs), -gap.last.timestamp(), gap.concept))


def _gap(group: list[tuple[Retrieved, Abstention]]) -> Gap:
    run, newest = group[0]
    scores = [abstention.best for _, abstention in group if abstention.best is not None]
    return Gap(
        concept=newest.concept,
        query=newest.query,
        times=len(group),
        runs=tuple(dict.fromkeys(run.run for run, _ in group)),
        best=max(scores, default=None),
        threshold=newest.threshold,
        last=datetime.fromtimestamp(run.ended).astimezone(),
    )


def looked_for(gaps: Iterable[Gap], library: OpenLibrary) -> list[Gap]:
    """Return gaps with whether a search finds an image by now, as a run would; raises as that does."""
    k = library.settings.retrieval.k
    return [gap.model_copy(update={"covered": not library.search(gap.query, k).abstained}) for gap in gaps]


def day(text: str) -> datetime | None:
    """Return the beginning of a day or a moment in ISO format, None for ""; raise `BadInput` for others."""
    if not text.strip():
        return None
    try:
        if len(text.strip()) > MAX_DATE:
            raise ValueError
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError):
        raise BadInput(f"since {text[:60]!r}: must be a date such as 2026-11-28") from None
