"""Credit sheets as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence

from pleinair.app.credits.sheet import NO_AUTHOR, NO_LICENSE, NO_REFERENCES, ImageCredit, Sheet
from pleinair.app.texts import printable
from pleinair.tools.retrieval.licenses import is_stated

ROLES = {"input": "input image", "pinned": "pinned", "retrieved": "retrieved", "base": "changed in part"}
COLUMNS = (
    "image", "concept", "role", "title", "author", "license", "license_name", "license_url", "source",
    "cropped", "id", "sha256",
)  # fmt: skip
_MARKUP = re.compile(r"([\\`*_\[\]<>|~])")
_FORMULA = ("=", "+", "-", "@")  # beginnings of cells that spreadsheets execute


def text_of(sheet: Sheet) -> str:
    """Return a sheet as lines for people."""
    lines = [printable(sheet.prompt), f"  run {sheet.run}"]
    lines += [
        f"  {model.kind}: {printable(model.name)}{_in_brackets(model.license)}" for model in sheet.models
    ]
    lines += ["", sheet.line]
    for heading, credits in _parts(sheet):
        lines += ["", f"{heading}:"] if credits else []
        for credit in credits:
            lines += [f"  {printable(credit.concept)}: {' · '.join(_facts(credit))}"]
            lines += [f"    {printable(credit.id)}, sha256 {credit.sha256}"]
    return "\n".join([*lines, ""])


def markdown_of(sheet: Sheet) -> str:
    """Return a sheet as Markdown; what others wrote is escaped."""
    lines = [f"# Credits of “{_escaped(sheet.prompt)}”", "", _escaped(sheet.line), ""]
    for heading, credits in _parts(sheet):
        lines += [f"## {heading}", ""]
        lines += [f"- **{_escaped(credit.concept)}**: {_markdown(credit)}" for credit in credits]
        lines += [] if credits else [NO_REFERENCES]
        lines += [""]
    lines += ["## Models", ""]
    for model in sheet.models:
        lines += [f"- {model.kind}: {_escaped(model.name)}{_in_brackets(_escaped(model.license))}"]
    return "\n".join([*lines, "", f"Run {sheet.run}", ""])


def csv_of(sheet: Sheet) -> str:
    """Return the images of a sheet as CSV, whose cells no spreadsheet takes for formulas."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image, credits in (("best", sheet.references), ("other", sheet.others)):
        for credit in credits:
            values = credit.model_dump() | {"image": image, "cropped": "yes" if credit.crop else "no"}
            writer.writerow([_cell(str(values[column])) for column in COLUMNS])
    return file.getvalue()


def web_address(text: str) -> str:
    """Return a text if it is a web address, else ""."""
    return text if re.match(r"https?://[^\s\"'<>\\]+\Z", text) else ""


def _parts(sheet: Sheet) -> Iterator[tuple[str, Sequence[ImageCredit]]]:
    yield "References of the image", sheet.references
    if sheet.others:
        yield "References of other attempts only", sheet.others


def _facts(credit: ImageCredit) -> list[str]:
    license = printable(credit.license) if is_stated(credit.license) else NO_LICENSE
    name = credit.license_name if credit.license_name != license else ""
    facts = (
        f'"{credit.title}"',
        f"by {printable(credit.author)}" if credit.author else NO_AUTHOR,
        license + _in_brackets(", ".join(filter(None, (name, credit.license_url)))),
        printable(credit.source),
        ROLES[credit.role],
        "cropped" if credit.crop else "",
    )
    return [fact for fact in facts if fact]


def _markdown(credit: ImageCredit) -> str:
    license = credit.license if is_stated(credit.license) else NO_LICENSE
    facts = (
        f"“{_escaped(credit.title)}”",
        _escaped(f"by {credit.author}" if credit.author else NO_AUTHOR),
        f"[{_escaped(license)}]({credit.license_url})" if credit.license_url else _escaped(license),
        f"<{credit.source}>" if web_address(credit.source) else _escaped(credit.source),
        ROLES[credit.role],
        "cropped" if credit.crop else "",
    )
    return ", ".join(fact for fact in facts if fact)


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", printable(text))


def _cell(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text
