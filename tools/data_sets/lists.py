"""Lists that number what they name, one a line, and the examples whose images are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

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
    layout.check(faults, file)
    return entries


def records(layout: Layout, file: str, value: object, key: str, *fields: str) -> list[dict[str, Any]]:
    """Return the objects of a list in a JSON object; raise `BadInput` where they have another form."""
    entries = value.get(key) if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise layout.wrong(f"{file} is no object with a list `{key}`")
    faults = Faults()
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not entry.keys() >= set(fields):
            faults.add(f"entries of `{key}` without {', '.join(fields)}", f"number {number}: {entry}")
    layout.check(faults, file)
    return entries


def licenses_of(layout: Layout, file: str, value: object) -> dict[object, str]:
    """Return the licenses of a JSON object in COCO's form by their ids: addresses, else names."""
    if not isinstance(value, dict) or "licenses" not in value:
        return {}
    entries = records(layout, file, value, "licenses", "id")
    return {each["id"]: str(each.get("url") or each.get("name") or "") for each in entries}


def only_present(
    place: Place, layout: Layout, listed: Iterable[Example]
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Return the examples whose images are there, and a text about the others; raise `BadInput` for none."""
    listed, faults, outside = list(listed), Faults(), Faults()
    for example in listed:
        if example.path.startswith("/") or ".." in example.path.split("/"):
            outside.add("paths that leave the data set's folder", example.path)
    layout.check(outside)
    present = place.present(example.path for example in listed)
    examples = []
    for example in listed:
        path = present.get(example.path)
        if not path:
            faults.add("listed images that are missing and left out", example.path)
        else:
            examples.append(example if path == example.path else replace(example, path=path))
    if not listed:
        raise layout.wrong(f"the lists in {place.folder} name no image")
    if not examples:
        raise layout.wrong(
            f"none of {len(listed):,} listed images is in {place.folder}, such as {listed[0].path}"
        )
    return tuple(examples), faults.texts()
