"""Test what the three papers claim: `python -m pleinair.evals papers`.

Every measurement is appended to a file as soon as it is made and not made again with the same engines, so a
stopped run goes on where it was, and no picture is drawn twice. With the defaults all of it takes most of an
hour of one core. Not covered: the papers' own data sets and similarity scores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from pleinair.evals.papers.bench import Bench, Remembered
from pleinair.evals.papers.plots import plot
from pleinair.evals.papers.report import Record, from_realrag, summarise, write_markdown
from pleinair.evals.papers.sections import tasks
from pleinair.evals.papers.tasks import Task
from pleinair.evals.report import Figures, versions
from pleinair.tools.retrieval.compose import RetrievalOptions
from pleinair.tools.types import BadInput

COMPARISONS = {  # of RealRAG's retrievers: what differs from the defaults of `pleinair.evals.realrag.run`
    "realrag": [],
    "look-alikes": ["--look-alikes", "432", "--epochs", "10"],
}
SECTIONS = (
    "imagerag",
    "captions",
    "pool",
    "domain",
    "rerank",
    "rerank-pool",
    "crossmodal",
    "binding",
    *COMPARISONS,
)
POOLS = (100, 1000)
LARGEST = 10_000
Key = tuple[str, str, int, str]


def add(commands: Any) -> None:
    """Add the command and its options."""
    papers = commands.add_parser("papers", help="test what the three papers claim", description=__doc__)
    papers.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between (all)")
    papers.add_argument("--prompts", type=int, default=30, help="in each section and seed, even (30)")
    papers.add_argument("--seeds", type=int, default=3, help="how many, from 0 (3)")
    papers.add_argument("--large", action="store_true", help="also a pool of 10,000 pictures")
    papers.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as in `pleinair draw`"
    )
    papers.add_argument("--json", type=Path, default=Path("reports/papers.json"), help="where the figures go")
    papers.add_argument("--out", type=Path, default=Path("reports"), help="where page, plots and records go")
    papers.add_argument("--work", type=Path, default=Path("reports/papers-work"), help="what is kept")
    papers.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    """Measure the sections that are asked for, and write figures, page and plots."""
    sections = chosen(options.only)
    options.out.mkdir(parents=True, exist_ok=True)
    with overridden(options.set):
        figures = _measure(options, sections)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    page = write_markdown(figures)
    (options.out / "papers.md").write_text(page, encoding="utf-8")
    paths = (options.json, options.out / "papers.md", *plot(figures, options.out))
    sys.stdout.write(page + "\n" + "".join(f"{path}\n" for path in paths))


def chosen(only: str) -> list[str]:
    """Read the names of sections; raise `BadInput` for one that is none."""
    named = [name.strip() for name in only.split(",")]
    for name in named:
        if name not in SECTIONS:
            raise BadInput(f"--only {name!r}: wanted some of {', '.join(SECTIONS)}.")
    return [name for name in SECTIONS if name in named]


@contextmanager
def overridden(texts: Sequence[str]) -> Iterator[None]:
    """Let `key=value` texts count for all that loads the settings meanwhile."""
    from pleinair.app.settings import PREFIX, assignments

    assignments(texts)  # refuses what is none
    before = dict(os.environ)
    for text in texts:
        key, _, value = text.partition("=")
        os.environ[PREFIX + key.strip().upper().replace(".", "__")] = value.strip()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _measure(options: argparse.Namespace, sections: Sequence[str]) -> Figures:
    """Make or find every measurement and sum it up."""
    started = perf_counter()
    bench, setup = pocket_bench(options.work.absolute())
    pools = (*POOLS, LARGEST) if options.large else POOLS
    file = Records(options.out / "papers.jsonl", setup)
    wanted: dict[str, list[Record]] = {name: [] for name in sections if name not in COMPARISONS}
    for name, records in wanted.items():
        for seed in range(options.seeds):
            records += file.make(tasks(bench, name, seed, options.prompts, pools))
    figures: Figures = {name: summarise(name, records) for name, records in wanted.items()}
    for name in [name for name in sections if name in COMPARISONS]:
        figures[name] = from_realrag(_realrag(options, setup, name))
    figures["about"] = {
        "command": _command(options, sections),
        "prompts": options.prompts,
        "seeds": options.seeds,
        "setup": setup,
        "generator": bench.context.generator.capabilities.id,
        "encoder": bench.encoder.id,
        "seconds": round(perf_counter() - started, 1),
        "versions": versions(),
    }
    return figures


def pocket_bench(work: Path) -> tuple[Bench, str]:
    """Build the engines of the pocket profile, and name them with the world they are asked about."""
    from pleinair.app.engines import build, engine
    from pleinair.app.paths import Paths
    from pleinair.app.settings import load
    from pleinair.evals.pocket.oracle import Oracle
    from pleinair.tools.model_files.folders import identity, locate
    from pleinair.tools.pocket.world import fingerprint
    from pleinair.tools.storage.artifacts import ArtifactStore

    settings, store = load("pocket"), ArtifactStore(work / "pictures")
    context = build(settings, Paths(work / "home"), store)
    encoder = engine("encoder", settings.encoder)
    knobs = settings.retrieval.model_dump(include=set(RetrievalOptions.model_fields))
    named = [context.generator.capabilities.id, encoder.id, fingerprint()]
    if detector := getattr(context.model, "detector", ""):
        named.append(identity(locate(detector)))
    text = "\n".join((*named, settings.model_dump_json(exclude={"paths", "profile"})))
    bench = Bench(
        work=work,
        context=replace(context, generator=Remembered(context.generator, store)),
        encoder=encoder,
        retrieval=RetrievalOptions.model_validate(knobs),
        judge=Oracle(),
    )
    return bench, hashlib.sha256(text.encode()).hexdigest()[:12]


class Records:
    """Keep measurements in a file, a line each; a line that a stop has cut is made again."""

    def __init__(self, path: Path, setup: str) -> None:
        self._path, self._setup = path, setup
        self._known: dict[Key, Record] = {key(one): one for one in self._read() if one["setup"] == setup}
        self._whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")

    def make(self, wanted: Iterable[Task]) -> Iterator[Record]:
        """Give each task's record, made now or found."""
        for task in wanted:
            if task.key not in self._known:
                self._append(self._measured(task))
            yield self._known[task.key]

    def _measured(self, task: Task) -> Record:
        started = perf_counter()
        measures = task.measure()
        seconds = perf_counter() - started
        sys.stderr.write(
            f"\r{f'{task.section} {task.column}, seed {task.seed}: {task.case}, {seconds:.1f} s':<110.110}"
        )
        sys.stderr.flush()
        return {
            "setup": self._setup,
            "section": task.section,
            "column": task.column,
            "seed": task.seed,
            "tier": task.tier,
            "case": task.case,
            "measures": measures,
            "seconds": round(seconds, 3),
        }

    def _append(self, record: Record) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("" if self._whole else "\n") + json.dumps(record) + "\n")
        self._whole = True
        self._known[key(record)] = record

    def _read(self) -> Iterator[Record]:
        lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        for line in lines:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def key(record: Record) -> Key:
    """Name what was measured, as the task does."""
    return record["section"], record["column"], record["seed"], record["case"]


def _realrag(options: argparse.Namespace, setup: str, name: str) -> Figures:
    """Run one of RealRAG's own comparisons, or find its figures."""
    from pleinair.evals.realrag import run as comparison

    size = ["--prompts", str(options.prompts), "--seeds", str(options.seeds)]
    folder = options.work / "realrag"
    kept = folder / f"{name}-{setup}-{options.prompts}-{options.seeds}.json"
    if not kept.exists():
        given = comparison.read_options(
            [*size, *COMPARISONS[name], "--out", str(folder), "--work", str(folder)]
        )
        found = comparison.measure(given)
        kept.write_text(json.dumps(found), encoding="utf-8")
    figures: Figures = json.loads(kept.read_text("utf-8"))
    return figures


def _command(options: argparse.Namespace, sections: Sequence[str]) -> str:
    """Give the command that repeats the figures."""
    parts = ["python -m pleinair.evals papers"]
    if tuple(sections) != SECTIONS:
        parts.append(f"--only {','.join(sections)}")
    parts.append(f"--prompts {options.prompts} --seeds {options.seeds}")
    parts += ["--large"] if options.large else []
    return " ".join([*parts, *(f"--set {text}" for text in options.set)])
