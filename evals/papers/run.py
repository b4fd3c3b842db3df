"""Test what the three papers claim: `python -m pleinair.evals papers`.

Every measurement is appended to a file at once and not repeated with the same engines, so a stopped run
continues, and no image is generated twice. With the defaults all of it takes most of an hour of one core. Not
covered: the papers' own data sets and similarity scores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from pleinair.evals.papers.bench import Bench, CachedGenerator
from pleinair.evals.papers.report import SECTIONS, Record, plot, summarise, write_markdown
from pleinair.evals.papers.sections import Task, tasks
from pleinair.evals.realrag import run as realrag
from pleinair.evals.report import Figures, versions, write_report
from pleinair.evals.run import show_progress
from pleinair.tools.retrieval.compose import PAPERS, RetrievalOptions
from pleinair.tools.types import BadInput

COMPARISONS = {  # of RealRAG's retrievers: what differs from the defaults of `pleinair.evals.realrag.run`
    "realrag": [],
    "look-alikes": ["--look-alikes", "1194", "--epochs", "10"],  # six a species, as right images
}
POOLS = (100, 1000)
LARGEST_POOL = 10_000


def add(commands: Any) -> None:
    """Add the command and its options."""
    papers = commands.add_parser("papers", help="test what the three papers claim", description=__doc__)
    papers.add_argument("--only", default=",".join(SECTIONS), help="comma-separated sections (all)")
    papers.add_argument("--prompts", type=int, default=30, help="prompts in each section and seed, even (30)")
    papers.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 (3)")
    papers.add_argument("--large", action="store_true", help="add a pool of 10,000 images")
    papers.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, as in `pleinair draw`"
    )
    papers.add_argument("--json", type=Path, default=Path("reports/papers.json"), help="file for the figures")
    papers.add_argument(
        "--out", type=Path, default=Path("reports"), help="folder for page, plots, measurements"
    )
    papers.add_argument(
        "--work", type=Path, default=Path("reports/papers-work"), help="folder for libraries, indexes, images"
    )
    papers.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    figures = _measure(options, choose_sections(options.only))
    page, page_path = write_markdown(figures), options.out / "papers.md"
    write_report(figures, page, options.json, page_path)
    paths = (options.json, page_path, *plot(figures, options.out))
    sys.stdout.write(page + "\n" + "".join(f"{path}\n" for path in paths))


def choose_sections(only: str) -> list[str]:
    """Read the names of sections and return them in their order; raise `BadInput` for an unknown one."""
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in SECTIONS:
            raise BadInput(f"--only {name!r}: unknown section; choose from {', '.join(SECTIONS)}.")
    return [name for name in SECTIONS if name in names]


def _measure(options: argparse.Namespace, sections: Sequence[str]) -> Figures:
    from pleinair.app.settings import assignments

    started, overrides = perf_counter(), assignments(options.set)
    bench, setup = pocket_bench(options.work.absolute(), overrides)
    sizes = (*POOLS, LARGEST_POOL) if options.large else POOLS
    cache = Cache(options.out / "papers.jsonl", setup)
    figures: Figures = {}
    for name in sections:
        if name in COMPARISONS:
            figures[name] = _realrag(options, overrides, setup, name)
        else:
            steps = [tasks(bench, name, seed, options.prompts, sizes) for seed in range(options.seeds)]
            figures[name] = summarise(name, [record for step in steps for record in cache.measure(step)])
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


def pocket_bench(work: Path, overrides: Mapping[str, Any]) -> tuple[Bench, str]:
    """Build the engines of the pocket profile; return them with a hash of all that figures depend on."""
    from pleinair.app.engines import build, build_encoder
    from pleinair.app.paths import Paths
    from pleinair.app.settings import load
    from pleinair.evals.pocket.oracle import Oracle
    from pleinair.tools.model_files.folders import identity, locate
    from pleinair.tools.pocket.catalogue.sampling import fingerprint
    from pleinair.tools.storage.artifacts import ArtifactStore

    settings, store = load("pocket", overrides), ArtifactStore(work / "pictures")
    context = build(settings, Paths(work / "home"), store)
    encoder = build_encoder(settings)
    options = settings.retrieval.model_dump(include=set(RetrievalOptions.model_fields))
    ids = [context.generator.capabilities.id, encoder.id, fingerprint()]
    if detector := getattr(context.model, "detector", ""):
        ids.append(identity(locate(detector)))
    text = "\n".join((*ids, settings.model_dump_json(exclude={"paths", "profile"})))
    bench = Bench(
        work=work,
        context=replace(context, generator=CachedGenerator(context.generator, store)),
        encoder=encoder,
        retrieval=RetrievalOptions.model_validate(options | PAPERS),
        judge=Oracle(),
    )
    return bench, hashlib.sha256(text.encode()).hexdigest()[:12]


class Cache:
    """Measurements of one setup in a file, a line each; a line that was cut off is measured again."""

    def __init__(self, path: Path, setup: str) -> None:
        self._path, self._setup = path, setup
        self._complete = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
        records = [record for record in self._read() if record["setup"] == setup]
        names = ("section", "column", "seed", "case")  # as `Task.key`
        self._records: dict[Any, Record] = {
            tuple(record[name] for name in names): record for record in records
        }

    def measure(self, tasks: Iterable[Task]) -> Iterator[Record]:
        """Yield each task's record, measured now or before."""
        for task in tasks:
            if task.key not in self._records:
                self._records[task.key] = self._append(task)
            yield self._records[task.key]

    def _append(self, task: Task) -> Record:
        started = perf_counter()
        measures = task.measure()
        seconds = perf_counter() - started
        show_progress(f"{task.section} {task.column}, seed {task.seed}: {task.case}, {seconds:.1f} s")
        record = {
            "setup": self._setup,
            **{name: getattr(task, name) for name in ("section", "column", "seed", "tier", "case")},
            "measures": measures,
            "seconds": round(seconds, 3),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("" if self._complete else "\n") + json.dumps(record) + "\n")
        self._complete = True
        return record

    def _read(self) -> Iterator[Record]:
        for line in self._path.read_text("utf-8").splitlines() if self._path.exists() else ():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def _realrag(options: argparse.Namespace, overrides: Mapping[str, Any], setup: str, name: str) -> Figures:
    """Run one of RealRAG's own comparisons, or read its figures; return those over all tiers."""
    folder = options.work / "realrag"
    path = folder / f"{name}-{setup}-{options.prompts}-{options.seeds}-by-tier.json"
    if not path.exists():
        size = ["--prompts", str(options.prompts), "--seeds", str(options.seeds)]
        words = [*size, *COMPARISONS[name], "--out", str(folder), "--work", str(folder)]
        figures = realrag.measure(realrag.read_options(words), overrides)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures), encoding="utf-8")
    return over_all_tiers(json.loads(path.read_text("utf-8")))


def over_all_tiers(figures: Figures) -> Figures:
    """Return the figures of RealRAG's comparison that are over all tiers."""
    return {
        "measures": {measure: {"all": tiers["all"]} for measure, tiers in figures["measures"].items()},
        "claims": [claim for claim in figures["claims"] if claim["tier"] == "all"],
        "command": figures["command"],
    }


def _command(options: argparse.Namespace, sections: Sequence[str]) -> str:
    return " ".join(
        [
            "python -m pleinair.evals papers",
            *([] if tuple(sections) == tuple(SECTIONS) else [f"--only {','.join(sections)}"]),
            f"--prompts {options.prompts} --seeds {options.seeds}",
            *(["--large"] if options.large else []),
            *(f"--set {text}" for text in options.set),
        ]
    )
