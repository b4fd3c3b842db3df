"""Generation of what tables need, by the papers' graphs and the profile's engines; nothing is made twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from PIL.Image import Image
from pydantic import BaseModel

from pleinair.agent.state import Output, changed
from pleinair.app.engines import build
from pleinair.app.paths import places
from pleinair.app.settings import Settings, altered
from pleinair.evals.papers.bench import request_key
from pleinair.evals.reproduce.plan import Arm, Line, Subject
from pleinair.evals.reproduce.records import Entry, Records, key_of
from pleinair.evals.run import STEPS, show_progress
from pleinair.tools import registry
from pleinair.tools.retrieval.filters import Filtered, without
from pleinair.tools.storage.artifacts import ArtifactStore, charged, spent_on
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Capabilities,
    GenerateRequest,
    Generator,
    ModelFault,
    Outcome,
    Picture,
    Usage,
)

if TYPE_CHECKING:
    from pleinair.agent.context import Context

_NOT_OF_AN_IMAGE = {"profile", "paths", "library", "budget", "worker", "output", "tracing"}


class UsedUp(BadInput):
    """The money of a command does not suffice for the rest; with more of it the same command goes on."""


@dataclass
class Clock:
    """Images that a command makes, what every image took, and the seconds saved by serving one again."""

    drawn: Records  # seconds and US dollars of all images of this and earlier commands
    made: int = 0
    saved: float = 0.0
    usd: float = 0.0  # of the images that were asked for, also of those that were served again


class TimedGenerator:
    """Generator that makes no image twice: one that is served again costs what it took."""

    def __init__(self, generator: Generator, store: ArtifactStore, clock: Clock) -> None:
        self._generator, self._store, self._clock = generator, store, clock

    @property
    def capabilities(self) -> Capabilities:
        """Return the generator's capabilities."""
        return self._generator.capabilities

    def generate(
        self, request: GenerateRequest, images: Sequence[Image], on_step: Callable[[int, int], None]
    ) -> Image:
        """Generate an image, or open that of an equal request of this or an earlier command."""
        key, clock = request_key(self.capabilities.id, request), self._clock
        made = clock.made

        def make() -> Image:
            started = perf_counter()
            image = self._generator.generate(request, images, on_step)
            clock.made += 1
            clock.drawn.add(key, seconds=round(perf_counter() - started, 3), usd=spent_on(image).usd)
            return image

        picture = self._store.once(key, make)
        if clock.made == made and (drawn := clock.drawn.get(key)):
            clock.saved += drawn["seconds"]
        spent = self._store.spent(key)
        clock.usd += spent.usd
        return charged(self._store.open(picture), spent)


@dataclass(frozen=True, slots=True)
class Work:
    """What one arm has to do: its line, its settings, and its prompts."""

    arm: Arm
    line: Line
    settings: Settings
    changes: Mapping[str, Any]  # of the profile's settings
    identity: str  # of all that its images depend on, but for the prompt
    subjects: tuple[Subject, ...]

    def key(self, subject: Subject) -> str:
        """Return the key of a prompt's entry."""
        return key_of(self.identity, subject.prompt, subject.seed, subject.left_out)


def work_of(
    arm: Arm,
    line: Line,
    settings: Settings,
    changes: Mapping[str, Any],
    pools: Sequence[Path],
    pool_digest: str,
    subjects: tuple[Subject, ...],
) -> Work:
    """Return an arm's work: the settings with what the line changes and with its pool."""
    folders = [str(pool.absolute()) for pool in pools]
    changed_settings = altered(settings, {**changes, **({"library.folder": folders} if folders else {})})
    facts = changed_settings.model_dump(mode="json", exclude=_NOT_OF_AN_IMAGE)
    identity = key_of(str(arm), line.variant.graph, pool_digest, facts)
    return Work(arm, line, changed_settings, changes, identity, subjects)


@dataclass
class Studio:
    """Engines, images and entries of a command.

    Entries are of one prompt each, with its image, its references and its cost. A model's fault is an entry
    without an image; every other error stops the command, and the next one goes on.
    """

    out: Path
    max_usd: float | None = None

    @cached_property
    def store(self) -> ArtifactStore:
        """Return the store of all images."""
        return ArtifactStore(self.out / "images")

    @cached_property
    def clock(self) -> Clock:
        """Return the images that this command makes, with the seconds of those of earlier ones."""
        return Clock(Records(self.out / "drawn.jsonl"))

    @cached_property
    def records(self) -> Records:
        """Return the entries of this and earlier commands."""
        return Records(self.out / "records.jsonl")

    def left(self, work: Work) -> list[Subject]:
        """Return the prompts of an arm that have no entry."""
        return [subject for subject in work.subjects if work.key(subject) not in self.records]

    def entries(self, work: Work) -> Iterator[tuple[Subject, Entry]]:
        """Yield the prompts of an arm that have an entry, with it."""
        for subject in work.subjects:
            if entry := self.records.get(work.key(subject)):
                yield subject, entry

    def run(self, work: Work, done: int, total: int) -> int:
        """Generate what an arm lacks; return how many of `total` are done then."""
        if not (left := self.left(work)):
            return done
        context = self._context(work.settings)
        graph = registry.resolve("graph", work.line.variant.graph)
        for subject in left:
            self.require_money()
            entry = self._generate(work, subject, graph, context)
            done += 1
            show_progress(f"{done}/{total} {work.arm}: {subject.prompt}, {entry['ending']}")
        return done

    @property
    def spent(self) -> float:
        """Return the US dollars of all commands; an image that several entries share counts once."""
        calls = sum(max(entry["usage"]["usd"] - entry.get("images_usd", 0.0), 0.0) for entry in self.records)
        return float(calls + sum(entry.get("usd", 0.0) for entry in self.clock.drawn))

    def require_money(self) -> None:
        """Raise `BadInput` if the budget is used up."""
        if self.max_usd is not None and self.spent >= self.max_usd:
            raise self._used_up()

    def _used_up(self) -> UsedUp:
        return UsedUp(
            f"--max-usd {self.max_usd:g} is used up: {self.spent:.4g} US dollars were spent.",
            "The same command with a higher one goes on where this one stopped.",
        )

    def charge(self, usage: Usage) -> None:
        """Add an entry of what an answer outside of a graph took."""
        self.records.add(uuid4().hex, arm="ratings", usage=usage.model_dump())

    def _context(self, settings: Settings) -> Context:
        context = build(settings, places(settings.paths.home), self.store)
        return replace(context, generator=TimedGenerator(context.generator, self.store, self.clock))

    def _generate(self, work: Work, subject: Subject, graph: Any, context: Context) -> Entry:
        """Generate for a prompt; a run that the last money cut short is charged and made again later.

        Raises:
            UsedUp: the money was used up on the way.
        """
        key, started, saved, usd = work.key(subject), perf_counter(), self.clock.saved, self.clock.usd
        state = changed(prompt=subject.prompt, seed=subject.seed, run_id=f"{work.arm}/{key}/{uuid4().hex}")
        of_prompt = self.context_for(work, subject, context)
        try:
            result = graph.invoke(state, {"recursion_limit": STEPS}, context=of_prompt)
            output, joint = Output.model_validate(result), result.get("joint")
            usage = Usage.total(output.usage)
        except ModelFault as error:
            output, joint = Output(outcome=Outcome(ending="failed", reason=str(error))), None
            usage = error.spent
        outcome = output.outcome or Outcome(ending="failed", reason="the graph ended without an outcome")
        is_cut = outcome.limit == "usd" and of_prompt.budget.usd != context.budget.usd
        entry = self.records.add(
            uuid4().hex if is_cut else key,
            arm=str(work.arm),
            data_set=work.arm.data_set,
            variant=work.arm.variant,
            prompt=subject.prompt,
            group=subject.group,
            seed=subject.seed,
            ending=outcome.ending,
            reason=outcome.reason,
            picture=_picture(outcome.best),
            draft=_picture(next((attempt for attempt in output.attempts if not attempt.repairs), None)),
            references=_references(outcome.best),
            sent=outcome.best.request.prompt if outcome.best else "",
            queries=[retrieval.query for retrieval in output.retrievals],
            joint=joint.model_dump(mode="json") if isinstance(joint, BaseModel) else joint,
            usage=usage.model_dump(),
            images_usd=round(self.clock.usd - usd, 6),
            seconds=round(perf_counter() - started + self.clock.saved - saved, 3),
        )
        if is_cut:
            raise self._used_up()
        return entry

    def context_for(self, work: Work, subject: Subject, context: Context) -> Context:
        """Return the context of one prompt: what is left of the money, and a pool without its own image.

        A subclass may change it further, for example its retriever.
        """
        if self.max_usd is not None:
            left, own = max(self.max_usd - self.spent, 0), context.budget.usd
            usd = left if own is None else min(left, own)
            context = replace(context, budget=context.budget.model_copy(update={"usd": usd}))
        if not subject.left_out:
            return context
        retriever = Filtered(context.paper_retriever or context.retriever, without([subject.left_out]))
        return context.with_retrievers(retriever, retriever)

    def image(self, entry: Entry, part: str = "picture") -> Path | None:
        """Return the file of an entry's image, None if it has none."""
        return Path(self.store.path(Picture(**entry[part]))) if entry[part] else None


def _picture(attempt: Attempt | None) -> dict[str, Any] | None:
    return attempt.picture.model_dump() if attempt else None


def _references(attempt: Attempt | None) -> list[dict[str, Any]]:
    references = attempt.request.references if attempt else ()
    return [
        {
            "id": reference.hit.id,
            "concept": reference.concept,
            "score": reference.hit.score,
            "picture": reference.picture.model_dump(),
        }
        for reference in references
    ]


def generate_all(studio: Studio, works: Sequence[Work], train: Callable[[Work], None]) -> None:
    """Generate what all arms lack; `train` is called before an arm whose retriever has to be trained."""
    total = sum(len(work.subjects) for work in works)
    done = total - sum(len(studio.left(work)) for work in works)
    for work in works:
        if work.line.variant.trained and studio.left(work):
            train(work)
        done = studio.run(work, done, total)
