"""Draw prompts in free words, and judge them by the oracle: `python -m pleinair.evals.pocket.prompts FILE…`.

The files are those of `pleinair.evals.pocket.language`: JSON lines of prompts with what they mean, or of
prompts that cannot be drawn. Images are judged by `pleinair.evals.pocket.scene_judge`; an item that the
oracle does not find right in true renders of the prompt is not judged. Of prompts that cannot be drawn it is
counted that the program refuses them before an image, in one line that has one of the table's nearest names.

`--renders` judges other true renders in place of drawn images: what the judge itself gets wrong.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL.Image import Image

from pleinair.agent.context import Context
from pleinair.app.runs.prompts import request_from
from pleinair.app.settings import Settings, assignments, load
from pleinair.evals.cases import Case
from pleinair.evals.metrics import wilson_interval
from pleinair.evals.pocket.language import PROMPTS, Row, meant
from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.pocket.scene_judge import Verdicts, judge, judgeable, true_render
from pleinair.evals.pocket.sheet import library_settings
from pleinair.evals.run import invoke, pocket_context, show_progress
from pleinair.graphs import pleinair
from pleinair.tools.pocket.catalogue.species import BY_NAME
from pleinair.tools.types import BadInput

Draw = Callable[[Row, int], Image | None]  # of a row, with a seed
_SORTS = ("subject", "count", "colour", "relation")
_OTHER_SEED = 1000  # of true renders that did not decide what is judged


def _draw_row(settings: Settings, context: Context, row: Row, seed: int) -> Image | None:
    """Draw a row's prompt as the program does; None without an image."""
    try:
        prompt = request_from(row["prompt"], graph="pleinair", settings=settings).prompt
    except BadInput:
        return None
    outcome = invoke(Case(f"prompt-{seed}", "known", prompt, (), seed), pleinair.graph, context).outcome
    return context.store.open(outcome.best.picture) if outcome and outcome.best else None


def refusal(settings: Settings, row: Row) -> str:
    """Return why the program refuses a row's prompt before any image, "" if it does not."""
    try:
        request_from(row["prompt"], graph="pleinair", settings=settings)
    except BadInput as error:
        return error.message if error.field == "prompt" else ""
    return ""


def _render_row(row: Row, seed: int) -> Image:
    """Render what a row means."""
    return true_render(meant(row), _OTHER_SEED + seed)


def judge_rows(rows: Sequence[Row], draw: Draw, oracle: Oracle) -> Iterator[Verdicts]:
    """Yield the verdicts on each row's image; without an image all items are wrong."""
    for number, row in enumerate(rows):
        request = meant(row)
        items, image = judgeable(request, oracle), draw(row, number)
        verdicts = judge(image, request, oracle.subjects(image)) if image else {}
        yield {item: verdicts.get(item, False) for item in items}
        show_progress(f"{number + 1}/{len(rows)} {row['prompt']}")


def report_inside(
    name: str, rows: Sequence[Row], verdicts: Sequence[Verdicts], *, show: bool = False
) -> None:
    """Print the shares of prompts, and of each sort of item, that were drawn as meant; `show` those not."""
    judged = [(row, items) for row, items in zip(rows, verdicts, strict=True) if items]
    _print_share(f"{name}: drawn as meant", [all(items.values()) for _, items in judged])
    of_novel = [all(items.values()) for row, items in judged if has_novel(row)]
    _print_share("  those with a novel species", of_novel)
    for sort in _SORTS:
        right = [value for _, items in judged for item, value in items.items() if item.startswith(sort)]
        _print_share(f"  {sort}", right)
    print(f"  prompts of which nothing can be judged: {len(verdicts) - len(judged)}")
    for row, items in judged if show else ():
        if wrong := [item for item, value in items.items() if not value]:
            print(f"    {row['prompt']}\n      not right: {', '.join(sorted(wrong))}")


def has_novel(row: Row) -> bool:
    """Return whether a row names a novel species."""
    return any(BY_NAME[s["name"]].tier == "novel" for s in row["subjects"] if s["name"] in BY_NAME)


def _report_outside(name: str, rows: Sequence[Row], settings: Settings) -> None:
    """Print how the program refuses prompts that cannot be drawn."""
    reasons = [refusal(settings, row) for row in rows]
    _print_share(f"{name}: refused before an image", [bool(reason) for reason in reasons])
    _print_share("  in one line", [len(reason.splitlines()) == 1 for reason in reasons])
    pairs = [(row["nearest"], reason) for row, reason in zip(rows, reasons, strict=True) if row["nearest"]]
    _print_share("  with a nearest name", [any(n in reason for n in names) for names, reason in pairs])


def _print_share(label: str, hits: Sequence[bool]) -> None:
    low, high = wilson_interval(sum(hits), len(hits))
    share = f"{sum(hits) / len(hits):.1%}" if hits else "–"
    print(f"{label}: {sum(hits)} of {len(hits)}, {share} (95 % Wilson {low:.1%} to {high:.1%})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw and judge some files, all shipped ones by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=PROMPTS)
    parser.add_argument("--first", type=int, default=None, help="number of prompts of each file (all)")
    parser.add_argument("--renders", action="store_true", help="judge true renders: the judge's own errors")
    parser.add_argument("--show", action="store_true", help="print the prompts that were not drawn as meant")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    options = parser.parse_args(arguments)
    oracle = Oracle()
    with TemporaryDirectory() as folder:
        drawer = cache(partial(_drawer, options, Path(folder)))
        for path in options.files:
            lines = path.read_text("utf-8").splitlines()[: options.first]
            rows = [json.loads(line) for line in lines if line.strip()]
            if inside := [row for row in rows if "subjects" in row]:
                verdicts = [*judge_rows(inside, drawer(), oracle)]
                report_inside(path.name, inside, verdicts, show=options.show)
            elif not options.renders:
                _report_outside(path.name, rows, load("pocket", assignments(options.set)))


def _drawer(options: argparse.Namespace, folder: Path) -> Draw:
    """Build what draws a row; the libraries are written into a folder."""
    if options.renders:
        return _render_row
    settings = assignments(options.set)
    if "library" not in settings:
        settings = library_settings(folder) | settings
    return partial(_draw_row, load("pocket", settings), pocket_context(folder, settings))


if __name__ == "__main__":
    main()
