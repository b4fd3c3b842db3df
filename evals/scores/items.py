"""Generated images with what they are compared with, and the scores of all of them with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import isnan, nan
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pleinair.evals.metrics import Interval, interval
from pleinair.tools.callbacks import no_callback
from pleinair.tools.types import BadInput

OnProgress = Callable[[int, int], None]  # receives the steps of a scorer that are done, and in total


@dataclass(frozen=True, slots=True)
class Generated:
    """Generated image file, its prompt, and the real images that show what it should show."""

    image: Path
    prompt: str
    truth: tuple[Path, ...] = ()
    group: str = ""  # class or species: a zero-shot class name, and a cluster of the intervals


class Scorer(Protocol):
    """Score of single images, one value each in their order (NaN: missing), or one of the set."""

    @property
    def title(self) -> str:
        """What is measured, such as "CLIP-T"."""

    @property
    def name(self) -> str:
        """The title with the model and its weights."""

    @property
    def needs_truth(self) -> bool:
        """Whether every image needs real ones."""

    @property
    def bounds(self) -> Interval:
        """The lowest and the highest value possible."""

    def score(self, items: Sequence[Generated], on_progress: OnProgress) -> list[float] | float:
        """Return the values of the images, or that of the set."""


@runtime_checkable
class ChecksItems(Protocol):
    """Scorer that refuses some images before anything is read."""

    def check(self, items: Sequence[Generated]) -> None:
        """Raise `BadInput` for images that cannot be scored."""


@dataclass(frozen=True, slots=True)
class Score:
    """Mean of a score over images, or the score of the set of them."""

    title: str  # what is measured, such as "CLIP-T"
    name: str  # the title with the model and its weights
    mean: float  # over the images that have a value; NaN if none has
    interval: Interval | None  # 95 %, by a bootstrap over groups; None for a score of the set
    n: int  # images with a value
    values: tuple[float, ...]  # one for each image, NaN where it is missing; empty for a score of the set
    real: int = 0  # different real images; 0 if the scorer uses none
    note: str = ""  # what limits a comparison of the figure

    def plain(self) -> dict[str, Any]:
        """Return the score as JSON values; a missing one is null."""
        values = [None if isnan(value) else value for value in self.values]
        return asdict(self) | {"mean": None if isnan(self.mean) else self.mean, "values": values}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Score:
        """Return the score of JSON values by `plain`."""
        values = tuple(nan if value is None else value for value in plain["values"])
        mean = nan if plain["mean"] is None else plain["mean"]
        ends = plain["interval"] and tuple(plain["interval"])
        return cls(**{**plain, "mean": mean, "interval": ends, "values": values})


def score(
    items: Sequence[Generated],
    scorers: Sequence[Scorer],
    *,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = no_callback,
) -> list[Score]:
    """Measure images by each scorer in turn.

    Args:
        items: the images; all have a `group`, or none has one.
        scorers: opened by `open_scorer`.
        seed: of the bootstrap of the intervals.
        on_progress: receives the scorer's name, its steps done and their number.

    Raises:
        BadInput: there are no images, an image has no prompt, no file, or no real images where a scorer needs
            them, or only some have a group; before anything is read.
    """
    _check(items, scorers)
    for scorer in scorers:
        if isinstance(scorer, ChecksItems):
            scorer.check(items)
    return [_score(items, scorer, seed, partial(on_progress, scorer.name)) for scorer in scorers]


def _check(items: Sequence[Generated], scorers: Sequence[Scorer]) -> None:
    if not items:
        raise BadInput("There are no generated images to score.")
    for item in items:
        if not item.prompt.strip():
            raise BadInput(f"{item.image} has no prompt.", "Give every image the prompt it was made for.")
        if not item.image.is_file():
            raise BadInput(f"{item.image} is not a file.")
    needing = [scorer.name for scorer in scorers if scorer.needs_truth]
    without = [item for item in items if not item.truth]
    if needing and without:
        raise BadInput(
            f"{len(without)} of {len(items)} images have no real images, such as {without[0].image} "
            f"({without[0].prompt!r}), and {needing[0]} compares with real ones.",
            "Add real images of what these show, or leave the score out.",
        )
    if len({bool(item.group) for item in items}) > 1:
        raise BadInput("Some of the images have a group and some have none.", "Set it for all, or for none.")


def _score(items: Sequence[Generated], scorer: Scorer, seed: int, on_progress: OnProgress) -> Score:
    result = scorer.score(items, on_progress)
    real = len({path for item in items for path in item.truth}) if scorer.needs_truth else 0
    if isinstance(result, float):
        return Score(
            scorer.title, scorer.name, result, None, len(items), (), real, getattr(scorer, "note", "")
        )
    pairs = [(value, item.group) for value, item in zip(result, items, strict=True) if not isnan(value)]
    values, groups = [value for value, _ in pairs], [group for _, group in pairs]
    missing = f"{len(items) - len(values)} images have no value" if len(values) < len(items) else ""
    return Score(
        title=scorer.title,
        name=scorer.name,
        mean=sum(values) / len(values) if values else nan,
        interval=interval(values, *scorer.bounds, seed, groups if any(groups) else None),
        n=len(values),
        values=tuple(result),
        real=real,
        note="; ".join(filter(None, (getattr(scorer, "note", ""), missing))),
    )
