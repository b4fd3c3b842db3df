"""Credit sheet of a run: whose images its generator was shown, under which licenses, and which models.

What is stated about an image was written by whoever made its library, and is repeated here, not checked. The
credit line has title, author, license with its address, and source of each reference, as Creative Commons
recommends, and says what was changed: the base image of an edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from pydantic import Field

from pleinair.app.texts import printable
from pleinair.tools.model_files.licenses import license_of
from pleinair.tools.retrieval.licenses import UNKNOWN, is_stated, name_and_address
from pleinair.tools.types import Attempt, Box, Hit, Reference, Value

Role = Literal["input", "pinned", "retrieved", "base"]  # "base": a part of it was generated anew
MAX_TITLE = 80  # characters of a caption that serves as a title
MAX_PART = 200  # characters of an author, a license or a source in the credit line
MAX_LINE = 4_000  # characters of the credit line
NO_REFERENCES = "No references."
NO_AUTHOR, NO_LICENSE = "unknown author", "license not stated"


class Chosen(NamedTuple):
    """What a person has chosen as references, beside input images of the run itself."""

    inputs: frozenset[str] = frozenset()  # SHA-256 of images that were put in by hand
    pins: frozenset[tuple[str, str]] = frozenset()  # concept and id of a hit


NOTHING = Chosen()


class ImageCredit(Value):
    """Credit of one reference."""

    concept: str  # that it showed the generator
    id: str  # of the library's image; the SHA-256 of an input image
    sha256: str
    license: str = UNKNOWN
    source: str = ""
    author: str = ""
    title: str = ""  # its caption, if people wrote one, or the name of its file
    license_name: str = ""
    license_url: str = ""
    role: Role = "retrieved"
    crop: Box | None = Field(default=None, exclude_if=lambda crop: crop is None)  # the part that was sent


class ModelCredit(Value):
    """Model that took part in a run."""

    kind: str  # generator, encoder, mllm
    name: str
    license: str = ""  # "" where it is not known


class Sheet(Value):
    """Credits of a run."""

    run: str
    prompt: str
    references: tuple[ImageCredit, ...] = ()  # of the best image
    others: tuple[ImageCredit, ...] = ()  # of the other attempts, unless the best image has them too
    models: tuple[ModelCredit, ...] = ()
    line: str = NO_REFERENCES  # the best image's references in one sentence


def credit_of(reference: Reference, chosen: Chosen = NOTHING) -> ImageCredit:
    """Return the credit of a reference."""
    hit = reference.hit
    name, address = name_and_address(hit.license)
    return ImageCredit(
        concept=reference.concept,
        id=hit.id,
        sha256=reference.picture.sha256,
        license=hit.license,
        source=hit.source,
        author=hit.author,
        title=_title(hit, reference.picture.sha256),
        license_name=name,
        license_url=address,
        role=_role(reference, chosen),
        crop=reference.crop,
    )


def sheet_of(
    run: str,
    prompt: str,
    attempts: Iterable[Attempt],
    best: Attempt | None,
    models: Mapping[str, str],
    chosen: Chosen = NOTHING,
) -> Sheet:
    """Return the credits of a run, which may have no image yet."""
    used = [credit_of(reference, chosen) for reference in (best.request.references if best else ())]
    if best and best.request.inpaint and best.request.inpaint.masked:
        used.insert(0, _base_credit(best.request.inpaint.picture.sha256))
    every = (reference for attempt in attempts for reference in attempt.request.references)
    others = [credit_of(reference, chosen) for reference in every]
    shown = {credit.sha256 for credit in used}
    return Sheet(
        run=run,
        prompt=prompt,
        references=tuple(used),
        others=tuple({credit.sha256: credit for credit in others if credit.sha256 not in shown}.values()),
        models=tuple(
            ModelCredit(kind=kind, name=name, license=license_of(name)) for kind, name in models.items()
        ),
        line=credit_line(used),
    )


def _base_credit(sha256: str) -> ImageCredit:
    """Return the credit of the base image of an edit, about which nothing but its content is known."""
    return ImageCredit(concept="base image", id=sha256, sha256=sha256, title=_short(sha256), role="base")


def credit_line(credits: Sequence[ImageCredit]) -> str:
    """Return the credits in one sentence, each image once; at most `MAX_LINE` characters."""
    entries = list(dict.fromkeys(map(_entry, credits)))
    if not entries:
        return NO_REFERENCES
    line = f"References: {entries[0]}"
    for number, entry in enumerate(entries[1:], 1):
        if len(line) + len(entry) > MAX_LINE:
            return f"{line}; and {len(entries) - number} more."
        line = f"{line}; {entry}"
    return f"{line}."


def _entry(credit: ImageCredit) -> str:
    """Return title, author, license and source of an image, and plainly what is not stated."""
    if credit.role == "base":
        return f"{_quoted(credit.title)} (the base image, changed in part)"
    if credit.role == "input" and credit.id == credit.sha256:
        return f"{_quoted(credit.title)} (an input image)"
    author = _part(credit.author) or NO_AUTHOR
    license = _part(credit.license) if is_stated(credit.license) else NO_LICENSE
    if credit.license_url and credit.license_url != license:
        license = f"{license} {credit.license_url}"
    terms = ", ".join(filter(None, (license, _part(credit.source))))
    return f"{_quoted(credit.title)} by {author} ({terms})"


def _quoted(title: str) -> str:
    return f'"{title.replace(chr(34), chr(39))}"'


def _part(text: str) -> str:
    """Return a text on one line without control characters, cut where it is too long for a credit line."""
    text = printable(text)
    return text if len(text) <= MAX_PART else f"{text[: MAX_PART - 1]}…"


def _title(hit: Hit, sha256: str) -> str:
    caption = printable(hit.caption.partition("\n")[0])
    if caption and not hit.caption_model and len(caption) <= MAX_TITLE:
        return caption
    return _short(sha256) if hit.id == sha256 else _part(PurePosixPath(hit.id).name or hit.id)


def _short(sha256: str) -> str:
    return f"{sha256[:12]}…"


def _role(reference: Reference, chosen: Chosen) -> Role:
    picture = reference.picture.sha256
    if reference.hit.id == picture or picture in chosen.inputs:
        return "input"
    return "pinned" if (reference.concept, reference.hit.id) in chosen.pins else "retrieved"
