"""Score generated images: `python -m pleinair.evals scores GENERATED [REAL] --scorer …`.

GENERATED is the folder of `pleinair draw --out` or `pleinair batch`, or a library whose captions are prompts.
REAL is a published data set's folder or a library; without it, what compares with real images is left out.
Vectors of images and answers of the language model are cached, so that a stopped command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.paths import places
from pleinair.evals.scores.gptscore import GptScore
from pleinair.evals.scores.inputs import MATCHES, class_names, pair, read_generated, read_real
from pleinair.evals.scores.items import Generated, Score, Scorer, score
from pleinair.evals.scores.open import FORMS, open_scorer
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_DIGITS = 4


def add(commands: Any) -> None:
    """Add the command and its options."""
    forms = "\n".join(f"  {form:<28} {what}" for form, what in FORMS.items())
    parser = commands.add_parser(
        "scores",
        help="score generated images by their prompts and real images",
        description=__doc__,
        epilog=f"scorers:\n{forms}\n\nMODEL=WEIGHTS may be hf-hub:OWNER/NAME@COMMIT or local-dir:FOLDER.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("generated", type=Path, help="folder of generated images with their prompts")
    parser.add_argument("real", type=Path, nargs="?", help="folder of real images with captions or classes")
    parser.add_argument(
        "--scorer", action="append", required=True, metavar="TEXT", help="what to measure; may be repeated"
    )
    parser.add_argument("--split", default="", help="of a data set's real images: train, val or test (all)")
    parser.add_argument(
        "--match", choices=MATCHES, default="auto", help="real images by caption or by class (by what fits)"
    )
    parser.add_argument(
        "--retriever",
        action="append",
        default=[],
        metavar="ID",
        help="retrieval's encoder (from the sidecars)",
    )
    parser.add_argument(
        "--allow-same-encoder", action="store_true", help="let the retrieval's own encoder score too"
    )
    parser.add_argument("--profile", help="profile with the language model of gptscore")
    parser.add_argument("--seed", type=int, default=0, help="seed of the intervals (0)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--out", type=Path, help="folder for scores.json and scores.md")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    cache = places().cache / "scores"
    generated = read_generated(options.generated)
    real = read_real(options.real, options.split, cache) if options.real else []
    items = pair(generated.items, real, options.match) if options.real else list(generated.items)
    retrievers = (*generated.retrievers, *options.retriever)
    names = class_names(real)
    classes = names if {item.group for item in items} <= set(names) else ()
    scorers = [scorer for text in options.scorer for scorer in _open(text, retrievers, classes, options)]
    if not options.real:
        scorers = _without_truth(scorers)
    if generated.skipped:
        _say(f"{generated.skipped} runs without an image are left out.")
    _say(_plan(items, scorers))
    scores = score(items, scorers, seed=options.seed, on_progress=_show)
    _say("")
    page, figures = "\n".join(_write_table(scores)), _figures(options, items, scores, retrievers)
    if options.out:
        write_whole(options.out / "scores.md", f"{page}\n".encode())
        write_whole(options.out / "scores.json", json.dumps(figures, ensure_ascii=False, indent=1).encode())
    print(json.dumps(figures, ensure_ascii=False, indent=1) if options.json else page)


def _open(
    text: str, retrievers: Sequence[str], classes: Sequence[str], options: argparse.Namespace
) -> list[Scorer]:
    """Open the scores of one model, which must be none of the retrieval's encoders."""
    model = _model(options.profile) if text == "gptscore" else None
    opened = [
        open_scorer(
            text, retriever=retriever, model=model, classes=classes, allow_same=options.allow_same_encoder
        )
        for retriever in retrievers or [""]
    ]
    return opened[0]


def _model(profile: str | None) -> BaseChatModel:
    """Build the language model of a profile, by default that of the settings."""
    from pleinair.app.engines import build_backend
    from pleinair.app.settings import load

    model: BaseChatModel = build_backend("mllm", load(profile).mllm)
    return model


def _without_truth(scorers: Sequence[Scorer]) -> list[Scorer]:
    rest = [scorer for scorer in scorers if not scorer.needs_truth]
    if not rest:
        raise BadInput(f"{scorers[0].name} compares with real images.", "Name their folder as REAL.")
    for scorer in scorers:
        if scorer.needs_truth:
            _say(f"{scorer.name}: left out, as it compares with real images and no folder of them is named.")
    return rest


def _plan(items: Sequence[Generated], scorers: Sequence[Scorer]) -> str:
    real = len({path for item in items for path in item.truth})
    calls = len(items) * sum(isinstance(scorer, GptScore) for scorer in scorers)
    asked = f", at most {2 * calls} calls of the language model ({calls} without repairs)" if calls else ""
    return f"{len(items)} generated images, {real} real ones, {len(scorers)} scores{asked}"


def _show(name: str, done: int, total: int) -> None:
    from pleinair.evals.run import show_progress

    show_progress(f"{name}: {done} of {total}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _write_table(scores: Sequence[Score]) -> Iterator[str]:
    """Yield the lines of a Markdown table of scores."""
    from pleinair.evals.report import table

    return table(_row(entry) for entry in scores)


def _row(entry: Score) -> dict[str, object]:
    low, high = entry.interval or (None, None)
    return {
        "score": entry.name,
        "mean": "–" if isnan(entry.mean) else f"{entry.mean:.{_DIGITS}f}",
        "95 % interval": "–" if low is None else f"{low:.{_DIGITS}f} to {high:.{_DIGITS}f}",
        "n": entry.n,
        "real": entry.real or "–",
        "note": entry.note,
    }


def _figures(
    options: argparse.Namespace,
    items: Sequence[Generated],
    scores: Sequence[Score],
    retrievers: Sequence[str],
) -> dict[str, Any]:
    """Return the scores as JSON, with each image's values; a missing one is null."""
    from pleinair.evals.report import versions

    return {
        "generated": str(options.generated),
        "real": str(options.real or ""),
        "split": options.split,
        "retrievers": list(retrievers),
        "seed": options.seed,
        "groups": len({item.group for item in items if item.group}),
        "versions": versions(),
        "images": [{"image": str(item.image), "prompt": item.prompt, "group": item.group} for item in items],
        "scores": [entry.plain() for entry in scores],
    }
