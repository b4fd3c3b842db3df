"""FGVC-Aircraft (Maji et al. 2013): 100 variants, with train, val and test apart.

The lowest 20 pixels of every image are a banner with its copyright note, which is no part of the
photograph: `Layout.banner`. `write_library` cuts it off; whoever opens the files must do so as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from pleinair.tools.data_sets.data_set import NO_FACTS, Contents, Example, Layout, Split
from pleinair.tools.data_sets.lists import only_present
from pleinair.tools.data_sets.place import Faults, Place

_ARCHIVE = "fgvc-aircraft-2013b.tar.gz (2.6 GB)"
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


def _find(place: Place) -> str:
    return place.find(*(f"images_variant_{split}.txt" for split in _SPLITS), "data/variants.txt")


def _read(place: Place) -> Contents:
    if not (file := place.find("variants.txt")):
        raise LAYOUT.missing("variants.txt", _ARCHIVE)
    names = tuple(dict.fromkeys(place.lines(file)))
    examples = [example for split in _SPLITS for example in _of_split(place, split, frozenset(names))]
    return Contents(names, *only_present(place, LAYOUT, examples))


def _of_split(place: Place, split: Split, names: frozenset[str]) -> Iterator[Example]:
    file = place.find(f"images_variant_{split}.txt")
    if not file:
        raise LAYOUT.missing(f"images_variant_{split}.txt", _ARCHIVE)
    facts = _manufacturers(place, split)
    root, faults = f"{file.rpartition('/')[0]}/images/".lstrip("/"), Faults()
    for line, text in enumerate(place.lines(file), start=1):
        number, _, name = text.partition(" ")
        if name not in names:
            faults.add(f"variants in {file} that are not in variants.txt", f"line {line}: {text}")
        else:
            yield Example(f"{root}{number}.jpg", name, split=split, facts=facts.get(number, NO_FACTS))
    LAYOUT.check(faults)


def _manufacturers(place: Place, split: Split) -> dict[str, dict[str, str]]:
    """Return the manufacturer of each image, which a variant's name lacks ("707-320"), where it is listed."""
    file = place.find(f"images_manufacturer_{split}.txt")
    pairs = (line.partition(" ") for line in place.lines(file)) if file else ()
    of_name: dict[str, dict[str, str]] = {}  # one object for all images of a manufacturer
    return {number: of_name.setdefault(name, {"manufacturer": name}) for number, _, name in pairs}


LAYOUT = Layout(
    name="aircraft",
    title="FGVC-Aircraft",
    size="10,000 images of 100 variants, 2.6 GB",
    license="non-commercial research only",
    source="Oxford's Visual Geometry Group, robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
    needs=("data/variants.txt", "data/images_variant_train.txt, _val.txt and _test.txt", "data/images/"),
    find=_find,
    read=_read,
    banner=20,
)
