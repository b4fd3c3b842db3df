"""Carry out a command: plan, estimate, generate, measure, and report.

What is missing is named all at once, before anything is generated. The estimate comes first. Every image and
every score is appended to a file at once, so that a stopped command goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.engines import check
from pleinair.app.settings import Settings, altered, assignments, load
from pleinair.evals.report import versions, write_report
from pleinair.evals.reproduce import page as html
from pleinair.evals.reproduce.estimates import forecast, ratings, require_budget
from pleinair.evals.reproduce.experiment import Experiment, Extra, Options, Setup
from pleinair.evals.reproduce.generate import Studio, Work, generate_all, work_of
from pleinair.evals.reproduce.plan import DOMAIN, NO_POOL, Arm, Line, Queries, Sheet, arms_of, choose, order
from pleinair.evals.reproduce.pools import (
    digest_of,
    domain_folder,
    generic_folder,
    write_domain,
    write_generic,
)
from pleinair.evals.reproduce.records import alone, checked_out, key_of
from pleinair.evals.reproduce.report import Report, plot, warning, write_markdown
from pleinair.evals.reproduce.results import LEFT_OUT, cells, failures, measure_all
from pleinair.evals.reproduce.scorers import open_scorers, scorers_of, unmeasured
from pleinair.evals.reproduce.sources import (
    ENGINES,
    find_data_sets,
    missing_data,
    missing_models,
    require_all,
)
from pleinair.evals.run import show_progress
from pleinair.tools.data_sets.data_set import DataSet
from pleinair.tools.types import BadInput, Usage

if TYPE_CHECKING:
    from pleinair.evals.scores.items import Scorer


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
    models = _missing_models(plan, settings)
    texts = scorers_of(experiment, options, plan.sheets)
    scorers, closed = open_scorers(texts, experiment, setup)
    expected = forecast(
        studio, works, settings, experiment.samples(setup, works), _answers(plan, setup, texts)
    )
    lines = [*expected.lines(), *unmeasured(experiment, plan.sheets, texts)]
    if options.estimate:
        lines += [f"missing: {line}" for line in (*plan.missing, *models, *closed)]
        _say(*lines, *["The figures leave out the data sets that are missing."] * bool(plan.missing))
        return
    require_all(plan.missing, models, closed)
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
    generator, is_published = _published_generator(experiment, settings)
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
    if arm.pool.kind == "generic" and options.generic is None:
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
    elif arm.pool.kind == "generic" and options.generic:
        size = arm.pool.size
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
        if pool.kind == "generic" and options.generic:
            write_generic(options.generic, pool.size, options.out, options.seed, truth)


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


def _published_generator(experiment: Experiment, settings: Settings) -> tuple[str, bool]:
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
        | ({"pool": str(work.arm.pool)} if work.arm.pool != NO_POOL else {})
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
