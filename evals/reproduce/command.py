"""Make the tables of a paper anew on your own copy of its data, beside the published figures.

What is missing is named all at once, before anything is generated. The estimate comes first. Every image and
every score is appended to a file at once, so that a stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.engines import build_backend, check
from pleinair.app.models.ready import find_missing_keys
from pleinair.app.settings import Settings, altered, assignments, load
from pleinair.evals.report import versions, write_report
from pleinair.evals.reproduce import crossmodal, imagerag, realrag
from pleinair.evals.reproduce import page as html
from pleinair.evals.reproduce.estimates import forecast, ratings, require_budget
from pleinair.evals.reproduce.experiment import Experiment, Extra, Options, Setup
from pleinair.evals.reproduce.generate import Studio, Work, generate_all, work_of
from pleinair.evals.reproduce.plan import DOMAIN, GENERIC, Arm, Line, Queries, Sheet, arms_of, choose, order
from pleinair.evals.reproduce.pools import (
    digest_of,
    domain_folder,
    generic_folder,
    write_domain,
    write_generic,
)
from pleinair.evals.reproduce.records import alone, checked_out, key_of
from pleinair.evals.reproduce.report import LEFT_OUT, Report, plot, warning, write_markdown
from pleinair.evals.reproduce.results import cells, failures, measure_all
from pleinair.evals.reproduce.sources import (
    ENGINES,
    find_data_sets,
    missing_data,
    missing_models,
    require_all,
)
from pleinair.evals.run import show_progress
from pleinair.evals.scores.encoders import encoder_text
from pleinair.evals.scores.open import measured_by
from pleinair.tools.data_sets.data_set import DataSet
from pleinair.tools.model_files.hub import NotDownloaded
from pleinair.tools.types import BadInput, Cancelled, Usage

if TYPE_CHECKING:
    from pleinair.evals.scores.items import Scorer

EXPERIMENTS = {
    "imagerag": (imagerag.EXPERIMENT, "make ImageRAG's tables on its data sets"),
    "crossmodal": (crossmodal.EXPERIMENT, "make Cross-modal RAG's tables on its data sets"),
    "realrag": (realrag.EXPERIMENT, "make RealRAG's tables on its data sets"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command does, before any of it is done."""

    sheets: Sequence[Sheet]
    extras: Sequence[Extra]
    arms: Mapping[Arm, Line]  # to be run
    not_run: dict[Arm, str]  # why
    data_sets: Mapping[str, DataSet]
    tests: Mapping[str, Queries]
    missing: Sequence[str]  # data sets, with what to fetch


def reproduce(experiment: Experiment, options: Options) -> None:
    """Carry out a command, or with `--estimate` only say what it takes.

    Raises:
        BadInput: an option is unusable, something is missing, or money has no limit; nothing was generated.
    """
    settings = load(options.profile, assignments(options.overrides))
    check(settings)
    plan = plan_of(experiment, settings, options)
    studio = Studio(checked_out(options.out), options.max_usd)
    works = [
        _work(experiment, plan, settings, arm, options) for arm in plan.arms if arm.data_set in plan.tests
    ]
    setup = Setup(options, settings, plan.data_sets, plan.tests, studio)
    missing = [*plan.missing, *_missing_models(plan, settings)]
    texts = _scorers_of(experiment, options, plan.sheets)
    scorers, faults = _open_scorers(texts, experiment, setup)
    missing += faults
    expected = forecast(
        studio, works, settings, experiment.samples(setup, works), _answers(plan, setup, texts)
    )
    lines = [*expected.lines(), *_unmeasured(experiment, plan.sheets, texts)]
    if options.estimate:
        lines += [f"missing: {line}" for line in missing]
        _say(*lines, *["The figures leave out the data sets that are missing."] * bool(plan.missing))
        return
    require_all(missing)
    _say(*lines)
    require_budget(expected, settings, options.max_usd)
    with alone(studio.out):
        _write_pools(plan, works, options)
        generate_all(studio, works, partial(experiment.train, setup))
        _write(_measure(experiment, setup, plan, works, scorers), experiment, options.out)


def _say(*lines: str) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))


def _measure(
    experiment: Experiment, setup: Setup, plan: Plan, works: Sequence[Work], scorers: Sequence[Scorer]
) -> Report:
    """Score what was generated, make the further measurements, and return all figures."""
    settings, options, studio = setup.settings, setup.options, setup.studio
    measured = [part for extra in plan.extras for part in extra.measure(setup)]
    scores = measure_all(
        studio,
        works,
        scorers,
        options.seed,
        lambda name, done, total: show_progress(f"{name}: {done}/{total}"),
    )
    for work in works:
        scores[work.arm] |= experiment.own_scores(setup, work)
    failed = failures(studio, works)
    empty = {arm: "no prompt gave an image" for arm, each in failed.items() if each.count == each.of}
    generator, is_published = published_generator(experiment, settings)
    by_arm = {work.arm: work for work in works}
    tables = [
        (each, cells(each, scores, by_arm, experiment.measures, generator, plan.not_run | empty))
        for each in plan.sheets
    ]
    return Report(
        paper=experiment.title,
        command=options.command,
        model=settings.generator.label,
        engines=f"MLLM {settings.mllm.label}, encoder {settings.encoder.label}",
        generator=generator,
        is_published_model=is_published,
        limits=_limits(experiment, plan, options),
        arms={str(work.arm): _changes(work) for work in works},
        tables=sorted([*tables, *measured], key=lambda pair: order(pair[0].numbers[0])),
        failures={str(arm): each for arm, each in failed.items()},
        scorers=[scorer.name for scorer in scorers],
        cost=_cost(studio),
        versions=versions(),
        seed=options.seed,
        examples=html.examples(studio, works),
    )


def plan_of(experiment: Experiment, settings: Settings, options: Options) -> Plan:
    """Return what a command does; reads the lists of the data sets and nothing else.

    Raises:
        BadInput: an unknown table, row or data set, or a folder without any data set.
    """
    extras = experiment.extras(settings, options)
    every = [*experiment.sheets(settings, options), *(each for extra in extras for each in extra.sheets)]
    chosen = choose(every, options.only, experiment.paper)
    ids = {each.id for each in chosen}
    sheets = [each for each in chosen if not any(each.id in _ids(extra) for extra in extras)]
    extras = [extra for extra in extras if ids & _ids(extra)]
    wanted = [column.partition(" ")[0] for each in chosen for column in each.columns]
    if unknown := [name for name in options.data_sets if name not in wanted]:
        accepted = ", ".join(dict.fromkeys(wanted))
        raise BadInput(f"--data-sets {unknown[0]!r}: in no table that was chosen; accepted: {accepted}")
    wanted = [name for name in wanted if not options.data_sets or name in options.data_sets]
    extras = [extra for extra in extras if {*extra.data_sets} & {*wanted}]
    present, faults = find_data_sets(options.data, wanted)
    data_sets = {name: present[name] for name in dict.fromkeys(wanted) if name in present}
    arms = arms_of(sheets)
    not_run = {arm: why for arm in arms if (why := _why_not(arm, wanted, options))}
    generated = {arm.data_set for arm in arms if arm not in not_run} | {
        name for extra in extras for name in extra.data_sets if name in data_sets
    }
    tests = {name: experiment.test(each, options) for name, each in data_sets.items() if name in generated}
    return Plan(
        sheets,
        extras,
        {arm: line for arm, line in arms.items() if arm not in not_run},
        not_run,
        data_sets,
        tests,
        missing_data(wanted, present, faults),
    )


def _ids(extra: Extra) -> set[str]:
    return {each.id for each in extra.sheets}


def _why_not(arm: Arm, wanted: Collection[str], options: Options) -> str:
    """Return why an arm is not run, "" if it is."""
    if arm.data_set not in wanted:
        return LEFT_OUT
    if arm.pool.startswith(GENERIC) and options.generic is None:
        return "needs a generic pool, --generic FOLDER"
    return ""


def _work(experiment: Experiment, plan: Plan, settings: Settings, arm: Arm, options: Options) -> Work:
    test, pools, digest = plan.tests[arm.data_set], list[Path](), ""
    if arm.pool == DOMAIN:
        names = (
            [name for name, each in plan.tests.items() if each.pool] if experiment.joined else [arm.data_set]
        )
        pools = [_pool_folder(plan, name, options) for name in names]
        digest = key_of([digest_of(plan.tests[name].pool) for name in names])
    elif arm.pool.startswith(GENERIC) and options.generic:
        size = int(arm.pool.partition(":")[2] or 0)
        pools = [generic_folder(options.generic, size, options.out, options.seed)]
        digest = key_of(str(options.generic.absolute()), size, options.seed)
    line = plan.arms[arm]
    changes = {**line.variant.settings, **experiment.changes(settings, options, line, digest)}
    return work_of(arm, line, settings, changes, pools, digest, test.subjects)


def _pool_folder(plan: Plan, name: str, options: Options) -> Path:
    return domain_folder(plan.data_sets[name], plan.tests[name], options.out)


def _write_pools(plan: Plan, works: Sequence[Work], options: Options) -> None:
    """Write the pools that arms need; one that is there already is brought up to date."""
    truth = {path for test in plan.tests.values() for subject in test.subjects for path in subject.truth}
    pools = {work.arm.pool for work in works}
    if DOMAIN in pools:
        for name in filter(lambda name: plan.tests[name].pool, plan.tests):
            write_domain(
                plan.data_sets[name], plan.tests[name], options.out, partial(_show, f"pool of {name}")
            )
    for pool in sorted(pools):
        if pool.startswith(GENERIC) and options.generic:
            size = int(pool.partition(":")[2] or 0)
            write_generic(options.generic, size, options.out, options.seed, truth)


def _show(what: str, done: int, total: int) -> None:
    show_progress(f"{what}: {done}/{total}")


def _answers(plan: Plan, setup: Setup, scorers: Sequence[str]) -> int:
    """Return the answers of the MLLM that further measurements and a score ask for, at most."""
    images = sum(len(plan.tests[arm.data_set].subjects) for arm in plan.arms if arm.data_set in plan.tests)
    asked = sum(extra.answers(setup) for extra in plan.extras if {*extra.data_sets} & {*plan.tests})
    return asked + ratings(images, scorers)


def _missing_models(plan: Plan, settings: Settings) -> list[str]:
    """Return what the rows and the further measurements lack on this machine."""
    rows = [altered(settings, line.variant.settings) for line in plan.arms.values()]
    kinds = {kind for extra in plan.extras for kind in extra.engines}
    return [*dict.fromkeys(missing_models(rows or [settings], settings, ENGINES if rows else kinds))]


def _titles(experiment: Experiment, sheets: Sequence[Sheet]) -> dict[str, tuple[str, ...]]:
    """Return for each measure of some tables the titles of the scores that measure it."""
    measures = {column.partition(" ")[2] for each in sheets for column in each.columns}
    return {name: titles for name, (titles, _) in experiment.measures.items() if name in measures}


def _scorers_of(experiment: Experiment, options: Options, sheets: Sequence[Sheet]) -> list[str]:
    """Return the user's scorers, or those of the paper's that some tables need; none without a table."""
    if options.scorers or not sheets:
        return [text for text in options.scorers if text != "none" and sheets]
    needed = {title for titles in _titles(experiment, sheets).values() for title in titles}
    return [text for text in experiment.scorers if needed & {*measured_by(text)}]


def _unmeasured(experiment: Experiment, sheets: Sequence[Sheet], scorers: Sequence[str]) -> list[str]:
    """Return a line for each measure that no scorer measures, nor the paper's own program."""
    measured = {title for text in scorers for title in measured_by(text)}
    own = {title for text in experiment.scorers for title in measured_by(text)}
    return [
        f"not measured: {name}, as there is no --scorer of {' or '.join(titles)}"
        for name, titles in _titles(experiment, sheets).items()
        if not measured & {*titles} and own & {*titles}
    ]


def _open_scorers(
    texts: Sequence[str], experiment: Experiment, setup: Setup
) -> tuple[list[Scorer], list[str]]:
    """Return the scorers, and those whose files are not on this machine.

    Raises:
        BadInput: a scorer is none, the retrieval's own encoder, or two measure the same.
    """
    from pleinair.evals.scores.open import open_scorer

    settings, options = setup.settings, setup.options
    by_title: dict[str, str] = {}
    for text in texts:
        for title in measured_by(text):
            if title in by_title:
                raise BadInput(f"--scorer {text!r}: measures {title} as {by_title[title]!r} does; name one.")
            by_title[title] = text
    retriever = encoder_text(settings.encoder)
    scorers: list[Scorer] = []
    missing: list[str] = []
    has_key = not [*find_missing_keys(settings)]
    for text in texts:
        is_rating = text == "gptscore"
        if is_rating and not has_key:  # the key is missing for more than the score
            continue
        model = build_backend("mllm", settings.mllm) if is_rating else None
        try:
            scorers += open_scorer(
                text, retriever=retriever, model=model, allow_same=options.allow_same, meter=setup.studio
            )
        except NotDownloaded as error:
            missing.append(f"scorer {text}: {_how_to_fetch(text, error, options, experiment)}")
    return scorers, missing


def _how_to_fetch(text: str, error: NotDownloaded, options: Options, experiment: Experiment) -> str:
    """Return what a scorer lacks; of the paper's with size and license, and how its option is written."""
    if options.scorers:
        return str(error)
    facts = experiment.scorers[text]
    if "=" in text:
        return f"{facts}; {error.remedy.removesuffix('.')}: --scorer {text}@COMMIT"
    return f"{facts}; name its path: --scorer {text}"


def published_generator(experiment: Experiment, settings: Settings) -> tuple[str, bool]:
    """Return the paper's generator whose figures are shown beside, and whether the profile's is that one."""
    label = settings.generator.label.lower()
    for name, parts in experiment.generators.items():
        if any(part in label for part in parts):
            return name, True
    return next(iter(experiment.generators)), False


def _limits(experiment: Experiment, plan: Plan, options: Options) -> tuple[str, ...]:
    """Return what is not as in the paper."""
    names_by_how: dict[str, list[str]] = {}
    for name, test in plan.tests.items() if options.limit else ():
        names_by_how.setdefault(test.how, []).append(name)
    parts = [f"{', '.join(names)}: {how}" for how, names in names_by_how.items()]
    for name, data_set in plan.data_sets.items():
        parts += [f"{name}: {problem}" for problem in data_set.problems]
    if options.images not in (None, experiment.images):
        parts.append(f"{options.images} images of each instead of {experiment.images}")
    own = any(arm.pool == DOMAIN for arm in plan.arms)
    if experiment.paper == "imagerag" and options.generic is None and own:
        parts.append(
            "no generic pool (--generic): tables that have one in the paper search the data set's own"
        )
    return tuple(parts)


def _changes(work: Work) -> dict[str, Any]:
    return (
        {"graph": work.line.variant.graph}
        | dict(work.changes)
        | ({"pool": work.arm.pool} if work.arm.pool else {})
    )


def _cost(studio: Studio) -> dict[str, float]:
    """Return what all entries took, also those of earlier commands; a shared draft counts in each."""
    usage = Usage.total([Usage(**entry["usage"]) for entry in studio.records])
    different = {"different images": sum(1 for _ in studio.clock.drawn)}
    return usage.model_dump() | different | {"images made by this command": studio.clock.made}


def _write(report: Report, experiment: Experiment, out: Path) -> None:
    text, path = write_markdown(report), out / f"{experiment.paper}.md"
    write_report(report.figures(), text, out / f"{experiment.paper}.json", path)
    image_page = html.write_page(report, warning(report), out / f"{experiment.paper}.html")
    sys.stderr.write("\n")
    sys.stdout.write("\n".join([text, *map(str, (path, image_page, *plot(report, out)))]) + "\n")


def add(commands: Any) -> None:
    """Add the commands of the three papers and their options."""
    for name, (experiment, help) in EXPERIMENTS.items():
        parser = commands.add_parser(name, help=help, description=f"{help}. {__doc__}")
        _add_options(parser, experiment)
        parser.set_defaults(run=partial(_run, name))


def _add_options(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    numbers = ", ".join(experiment.numbers)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="a data set's folder, or one of several; repeatable",
    )
    add("--profile", default=None, help="profile of the engines (that of pleinair.toml, else pocket)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, as in `pleinair draw`")
    add("--only", default="", metavar="TABLE[:ROW],ROW,…", help=f"tables and rows (all): {numbers}")
    add("--data-sets", default="", metavar="NAME,…", help="of those that the tables need (all)")
    add("--limit", type=_positive, metavar="N", help="the first N classes of a data set (the paper's number)")
    add("--images", type=_positive, metavar="N", help=f"images of a class or query ({experiment.images})")
    add("--seed", type=_seed, default=0, help="from which each prompt's seed derives (0)")
    add(
        "--scorer",
        action="append",
        default=[],
        metavar="TEXT",
        help=f"a score's model, repeatable, or none (the paper's: {', '.join(experiment.scorers)})",
    )
    add("--allow-same-encoder", action="store_true", help="score with the retrieval's own encoder, too")
    add(
        "--out",
        type=Path,
        default=Path(f"reports/{experiment.paper}"),
        help="folder of everything that is made",
    )
    add("--max-usd", type=_usd, metavar="USD", help="US dollars of all commands with this --out, at most")
    add("--estimate", action="store_true", help="print what it takes and what is missing, and stop")
    if experiment.paper == "imagerag":
        add(
            "--generic",
            type=Path,
            metavar="DIR",
            help="library of images of any kind, such as a part of LAION",
        )
        add("--pool-sizes", default="1000,10000,100000,350000", help="of figure 16, in images (%(default)s)")
    if experiment.paper == "realrag":
        add(
            "--train",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="an option of the retrievers' training, such as epochs=10",
        )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, 1 or more")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, 0 or more")
    return int(text)


def _usd(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    if not 0 < amount < inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be an amount of US dollars above 0")
    return amount


def _run(name: str, options: argparse.Namespace) -> None:
    experiment, _ = EXPERIMENTS[name]
    try:
        reproduce(experiment, read_options(options))
    except KeyboardInterrupt:
        raise Cancelled("Stopped.", "The same command goes on where it was.") from None


def read_options(options: argparse.Namespace) -> Options:
    """Return the options of a parsed command line."""
    sizes = _listed(getattr(options, "pool_sizes", ""))
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise BadInput(f"--pool-sizes {options.pool_sizes!r}: must be numbers of images, such as 1000,10000")
    generic = getattr(options, "generic", None)
    if generic and not generic.is_dir():
        raise BadInput(f"--generic {str(generic)!r}: no such folder.")
    return Options(
        data=tuple(options.data),
        out=options.out,
        profile=options.profile,
        overrides=tuple(options.set),
        only=_listed(options.only),
        data_sets=_listed(options.data_sets),
        limit=options.limit,
        images=options.images,
        seed=options.seed,
        scorers=tuple(options.scorer),
        allow_same=options.allow_same_encoder,
        generic=generic,
        pool_sizes=tuple(map(int, sizes)),
        training=tuple(getattr(options, "train", ())),
        max_usd=options.max_usd,
        estimate=options.estimate,
        command=shlex.join(["python", "-m", "pleinair.evals", *options.words]),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
