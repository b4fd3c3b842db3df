"""Experiments of a paper as the command uses them: tables, test prompts, scorers and further measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.settings import Settings
from pleinair.evals.reproduce.plan import Line, Queries, Sheet
from pleinair.evals.reproduce.published import Paper
from pleinair.tools.data_sets.data_set import DataSet
from pleinair.tools.registry import Kind

if TYPE_CHECKING:
    from pleinair.evals.reproduce.generate import Studio, Work
    from pleinair.evals.reproduce.results import Cell, Measures
    from pleinair.evals.scores.items import Score

Measured = tuple[Sheet, "list[Cell]"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line sets."""

    data: tuple[Path, ...]
    out: Path
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    data_sets: tuple[str, ...] = ()  # to use; empty: all that the tables need
    limit: int | None = None  # classes of a data set; None: the paper's
    images: int | None = None  # of a class or query; None: the paper's
    seed: int = 0
    scorers: tuple[str, ...] = ()  # empty: the paper's
    allow_same: bool = False
    generic: Path | None = None
    pool_sizes: tuple[int, ...] = ()
    training: tuple[str, ...] = ()  # options of RealRAG's training
    max_usd: float | None = None
    estimate: bool = False
    command: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """What further measurements work with."""

    options: Options
    settings: Settings
    data_sets: Mapping[str, DataSet]
    tests: Mapping[str, Queries]
    studio: Studio


@dataclass(frozen=True, slots=True)
class Extra:
    """Measurement without images: its tables, the answers of the MLLM that it lacks, and how it is made."""

    sheets: tuple[Sheet, ...]
    data_sets: tuple[str, ...]
    engines: tuple[Kind, ...]  # that it uses
    answers: Callable[[Setup], int]
    measure: Callable[[Setup], list[Measured]]


def _no_changes(settings: Settings, options: Options, line: Line, pool: str) -> Mapping[str, Any]:
    """Return that a line changes nothing but what it lists."""
    return {}


def _no_samples(setup: Setup, works: Sequence[Work]) -> int:
    """Return that no training generates anything."""
    return 0


def _no_training(setup: Setup, work: Work) -> None:
    """Do nothing: no arm needs a training."""


def _no_scores(setup: Setup, work: Work) -> dict[str, Score]:
    """Return that entries have no score of their own."""
    return {}


def _no_extras(settings: Settings, options: Options) -> Sequence[Extra]:
    """Return that nothing is measured but what is generated."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One paper's experiments."""

    paper: Paper
    title: str
    sheets: Callable[[Settings, Options], Sequence[Sheet]]
    test: Callable[[DataSet, Options], Queries]
    measures: Measures
    scorers: Mapping[str, str]  # the paper's, or where it names none ours, with what to fetch
    generators: Mapping[str, tuple[str, ...]]  # the paper's, by parts of the names of their weights
    numbers: tuple[str, ...]  # of the tables
    images: int = 1  # of a class or query
    joined: bool = False  # whether the pools of all data sets are searched as one
    extras: Callable[[Settings, Options], Sequence[Extra]] = _no_extras
    # what a line changes besides, by the digest of its pool
    changes: Callable[[Settings, Options, Line, str], Mapping[str, Any]] = _no_changes
    samples: Callable[[Setup, Sequence[Work]], int] = _no_samples  # images that a training generates
    own_scores: Callable[[Setup, Work], dict[str, Score]] = _no_scores  # of an arm, by their titles
    train: Callable[[Setup, Work], None] = _no_training  # what an arm needs before its first image
