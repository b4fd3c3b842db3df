"""Question of a run that waits for approval: printed with numbers, and asked on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.cli.terminal import say
from pleinair.app.runs.question import hit_id, hits_of, lines_of
from pleinair.app.runs.row import Run
from pleinair.app.texts import printable
from pleinair.tools.types import BadInput

CHOICES = "y: yes; n: stop here; e: edit"


def how_to_answer(run: Run) -> str:
    """Return the commands that answer the question of a run."""
    return (
        f"run {run.id} waits for your approval: `pleinair runs answer {run.id}` goes on as proposed, "
        "`--help` lists the changes, `--stop` ends it"
    )


def approval_of(
    question: ApprovalRequest,
    vetoes: Sequence[str] = (),
    uses: Sequence[str] = (),
    names: Sequence[str] = (),
    prompt: str = "",
    stop: bool = False,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of an `Approval` and the files of input images by concept; raises `BadInput`.

    Args:
        question: what is answered.
        vetoes: ids or numbers of references.
        uses: CONCEPT=VALUE; the value is an id, a number or a file.
        names: CONCEPT=NAME.
        prompt: in place of the run's.
        stop: whether the run ends.
    """
    hits, files = {}, {}
    known = {hit.id for hit in hits_of(question)}
    for concept, value in _pairs("--use", uses).items():
        if value not in known and not value.isdecimal() and Path(value).expanduser().is_file():
            files[concept] = str(Path(value).expanduser())
        else:
            hits[concept] = hit_id(question, value)
    fields = {
        "vetoes": [hit_id(question, value) for value in vetoes],
        "hits": hits,
        "concepts": _pairs("--rename", names),
        "prompt": prompt,
        "stop": stop,
    }
    return fields, files


def ask(run: Run, question: ApprovalRequest) -> tuple[dict[str, Any], dict[str, str]]:
    """Ask on the terminal, until the answer can be used, and return it as `approval_of` does."""
    for line in lines_of(question):
        say(printable(line), err=True)
    while True:
        choice = _typed(f"Go on? ({CHOICES})").lower()
        try:
            if choice in ("y", "yes", ""):
                return {}, {}
            if choice in ("n", "no"):
                return {"stop": True}, {}
            if choice in ("e", "edit"):
                return _edited(question)
        except BadInput as error:
            say(printable(str(error)), err=True)


def _edited(question: ApprovalRequest) -> tuple[dict[str, Any], dict[str, str]]:
    uses, names = [], []
    vetoes = _typed("Numbers that are never to be used, separated by spaces").split()
    for concept in question.concepts:
        if value := _typed(f"Reference of {printable(concept.name)}: a number or file"):
            uses.append(f"{concept.name}={value}")
        if name := _typed(f"Another name of {printable(concept.name)}"):
            names.append(f"{concept.name}={name}")
    return approval_of(question, vetoes, uses, names, _typed("Another prompt"))


def _typed(text: str) -> str:
    answer: str = typer.prompt(text, default="", show_default=False, err=True)
    return answer.strip()


def _pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    """Return the concept and the value of each `CONCEPT=VALUE`; raises `BadInput`."""
    result = {}
    for value in values:
        concept, equals, rest = value.partition("=")
        if not (equals and concept.strip() and rest.strip()):
            raise BadInput(f"{option} {value!r}: must be CONCEPT=VALUE")
        result[concept.strip()] = rest.strip()
    return result
