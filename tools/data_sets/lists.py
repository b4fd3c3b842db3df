"""Lists that number what they name, one a line, and the examples whose images are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pleinair.tools.data_sets.data_set import Example, Layout
from pleinair.tools.data_sets.place import Faults, Place


def numbered(place: Place, layout: Layout, file: str) -> dict[int, str]:
    """Return the lines of a list by the numbers that they begin with; raise `BadInput` for one without."""
    entries, faults = dict[int, str](), Faults()
    for line, text in enumerate(place.lines(file), start=1):
        number, _, value = text.partition(" ")
        if not number.isdecimal() or not value.strip():
            faults.add("lines without a number and a value", f"line {line}: {text}")
        elif int(number) in entries:
            faults.add("numbers that are there twice", f"line {line}: {text}")
        else:
            entries[int(number)] = value.strip()
    if faults.texts():
        raise layout.wrong(f"{file}: {faults}")
    return entries


def only_present(
    place: Place, layout: Layout, listed: Iterable[Example]
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Return the examples whose images are there, and a text about the others; raise `BadInput` for none."""
    listed, faults = list(listed), Faults()
    present = place.present(example.path for example in listed)
    examples = []
    for example in listed:
        path = present.get(example.path)
        if not path:
            faults.add("listed images that are missing and left out", example.path)
        else:
            examples.append(example if path == example.path else replace(example, path=path))
    if not examples:
        first = f", such as {listed[0].path}" if listed else ""
        raise layout.wrong(f"none of {len(listed):,} listed images is in {place.folder}{first}")
    return tuple(examples), faults.texts()
