"""Accuracy of an MLLM's decisions: ImageRAG's appendix E.5, on images of the user's iNaturalist.

An image of a class is shown with "a photo of a X" for its own class, "a photo of a X and a Y" and "a photo of
a Y" for each other one; only the first matches. Of 20 classes these are 20, 380 and 380 prompts. Ours: the
first image of the test split of each of the first 20 classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pleinair.app.engines import build_backend
from pleinair.app.settings import Settings
from pleinair.evals.metrics import interval
from pleinair.evals.reproduce.experiment import Extra, Measured, Options, Setup
from pleinair.evals.reproduce.plan import Line, Sheet, Variant, sheet
from pleinair.evals.reproduce.records import key_of
from pleinair.evals.reproduce.results import Cell
from pleinair.evals.run import show_progress
from pleinair.tools import imagerag
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Refused, Usage

ID = "imagerag/E.5"
DATA_SET = "inaturalist"
CLASSES = 20
_MODELS = {
    "gpt-4o": "GPT-4o",
    "gemini": "Gemini",
    "qwen2.5-vl-7b": "Qwen2.5-VL-7B-Instruct",
    "llava": "LLaVA",
}


@dataclass(frozen=True, slots=True)
class _Question:
    column: str
    group: str  # the class that the image shows
    image: Path
    prompt: str
    match: bool  # the right answer


def decisions(settings: Settings, options: Options) -> Extra:
    """Return the measurement; `--limit` is the number of classes."""
    return Extra(
        sheets=(_sheet(settings),),
        data_sets=(DATA_SET,),
        engines=("mllm",),
        answers=lambda setup: sum(
            _key(setup, each) not in setup.studio.records for each in _questions(setup)
        ),
        measure=_measure,
    )


def _sheet(settings: Settings) -> Sheet:
    label = settings.mllm.label
    published = next((row for part, row in _MODELS.items() if part in label.lower()), "")
    return sheet(ID, [Line(f"decisions of {label}", Variant("decisions", ""), published={"": published})])


def _questions(setup: Setup) -> Iterator[_Question]:
    columns = _sheet(setup.settings).columns
    subjects = {subject.group: subject.truth[0] for subject in setup.tests[DATA_SET].subjects}
    classes = list(subjects.items())[: setup.options.limit or CLASSES]
    for shown, image in classes:
        yield _Question(columns[0], shown, image, f"a photo of a {shown}", True)
        for other in (name for name, _ in classes if name != shown):
            yield _Question(columns[1], shown, image, f"a photo of a {shown} and a {other}", False)
            yield _Question(columns[2], shown, image, f"a photo of a {other}", False)


def _key(setup: Setup, question: _Question) -> str:
    mllm = setup.settings.mllm.model_dump(mode="json")
    return key_of("decision", mllm, str(question.image), question.prompt)


def _measure(setup: Setup) -> list[Measured]:
    questions, each = list(_questions(setup)), _sheet(setup.settings)
    rights = [
        _is_right(setup, question, f"{done}/{len(questions)}") for done, question in enumerate(questions, 1)
    ]
    line = each.lines[0]
    cells = []
    for column in each.columns:
        of_column = [
            (right, question.group)
            for right, question in zip(rights, questions, strict=True)
            if question.column == column
        ]
        values, groups = [100.0 * right for right, _ in of_column], [group for _, group in of_column]
        cells.append(
            Cell(
                row=line.title,
                data_set=DATA_SET,
                measure=column.partition(" ")[2],
                mean=sum(values) / len(values) if values else None,
                interval=interval(values, 0, 100, setup.options.seed, groups),
                n=len(values),
                groups=len(set(groups)),
                published=each.figure(line, column, ""),
                why="" if values else "one class has no other",
            )
        )
    return [(each, cells)]


def _is_right(setup: Setup, question: _Question, done: str) -> bool:
    """Return whether the model decides right, asked now or before; to decline is wrong."""
    studio, key = setup.studio, _key(setup, question)
    entry = studio.records.get(key)
    if entry is None:
        studio.require_money()
        answer, why, usage = _ask(setup, question)
        entry = studio.records.add(
            key, arm="decisions", prompt=question.prompt, answer=answer, why=why, usage=usage.model_dump()
        )
        show_progress(f"decision {done}: {question.prompt}, {answer}")
    return bool(entry["answer"] == ("match" if question.match else "no match"))


def _ask(setup: Setup, question: _Question) -> tuple[str, str, Usage]:
    model = build_backend("mllm", setup.settings.mllm)
    png = encode_png(read_untrusted(question.image))
    try:
        decision, usage = imagerag.decide(
            imagerag.Conversation(model=model, prompt=question.prompt, newest=png)
        )
    except Refused as refusal:
        return "declined", refusal.message, refusal.spent
    return "match" if decision.match else "no match", decision.why, usage
