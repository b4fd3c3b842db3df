"""iNaturalist's competitions of 2017 to 2021 (Van Horn et al. 2018, 2021): JSON, or folders with names.

A class has its common name where the list has one (2021), else its scientific name. The images of 2018 and
2019 lie in folders of numbers, so `categories.json` is needed where the JSON still hides the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pleinair.tools.data_sets.data_set import Contents, Example, Layout, Split, split_of
from pleinair.tools.data_sets.lists import licenses_of, only_present, records
from pleinair.tools.data_sets.place import Faults, Place

_TAXON = r"\d{5}_[A-Z][a-z]+_.+"  # 00000_Animalia_Annelida_…_Lumbricus_terrestris, in 2021
_HIDDEN = re.compile(r"(?:\w+[ _])?\d+")  # name of a category before the names were published
_YEARS = (2018, 2017, 2019)  # those with lists named by their year
_SPLITS: tuple[Split, ...] = ("train", "val")


def _find(place: Place) -> str:
    # `train2017.json` alone may be anybody's list in COCO's form
    years = [year for year in _YEARS if year != 2017 or place.find_folder("train_val_images")]
    listed = place.find(*(f"{split}{year}.json" for year in years for split in _SPLITS))
    return listed or _numbered(place) or next(_taxon_folders(place), "")


def _numbered(place: Place) -> str:
    """Return the folder of the images of 2018 or 2019, which no name says without a list."""
    return place.find_folder("train_val2018", "train_val2019")


def _taxon_folders(place: Place) -> Iterator[str]:
    for below, names in place.parents(_TAXON).items():
        yield from (f"{below}{name}/" for name in names)


def _read(place: Place) -> Contents:
    lists = next(filter(None, (_lists_of(place, str(year)) for year in _YEARS)), []) or _lists_of(place, "")
    if not lists and (folder := _numbered(place)):
        file = f"train{folder[-5:-1]}.json"
        raise LAYOUT.missing(file, f"{file}.tar.gz")
    if not lists:
        return _by_folder(place)
    values = [(file, place.json(file), split) for file, split in lists]
    categories = _categories(place, values[0][1])
    names = _names(categories)
    examples = [each for file, value, split in values for each in _examples(place, file, value, split, names)]
    return Contents(tuple(names.values()), *only_present(place, LAYOUT, examples))


def _lists_of(place: Place, year: str) -> list[tuple[str, Split]]:
    """Return the lists of a year, or of 2021 (""); of its two to train, that whose images are there."""
    lists = [(file, split) for split in _SPLITS if (file := place.find(f"{split}{year}.json"))]
    small = "" if year else place.find("train_mini.json")
    if small and not place.find_folder("train"):
        lists = [(small, "train"), *(pair for pair in lists if pair[1] != "train")]
    return lists


def _categories(place: Place, value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the categories with their names, of the list itself or of `categories.json`."""
    file = place.find("categories.json")
    published = place.json(file) if file else None
    published = {"categories": published} if isinstance(published, list) else published
    categories = records(LAYOUT, file or "the list", published or value, "categories", "id", "name")
    if not categories or all(_HIDDEN.fullmatch(str(each.get("name"))) for each in categories):
        raise LAYOUT.missing("categories.json", "categories.json.tar.gz, with the names of the classes")
    return sorted(categories, key=lambda each: int(each["id"]))


def _names(categories: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    return {int(each["id"]): str(each.get("common_name") or each["name"]) for each in categories}


def _examples(
    place: Place, file: str, value: Mapping[str, Any], split: Split, names: Mapping[int, str]
) -> Iterator[Example]:
    notes = records(LAYOUT, file, value, "annotations", "image_id", "category_id")
    labels, licenses = (
        {each["image_id"]: each["category_id"] for each in notes},
        licenses_of(LAYOUT, file, value),
    )
    faults, facts = Faults(), dict[tuple[object, ...], dict[str, str]]()  # one object for equal facts
    images, examples = records(LAYOUT, file, value, "images", "id", "file_name"), list[Example]()
    root = _root(place, images)
    for image in images:
        label, license, holder = labels.get(image["id"], -1), image.get("license"), image.get("rights_holder")
        if label not in names:
            faults.add(f"images in {file} without a category of the list", image["file_name"])
            continue
        of_image = {"code": str(label), "license": licenses.get(license, ""), "author": str(holder or "")}
        used = facts.setdefault(
            (label, license, holder), {key: text for key, text in of_image.items() if text}
        )
        examples.append(Example(f"{root}{image['file_name']}", names[label], split=split, facts=used))
    LAYOUT.check(faults)
    yield from examples


def _root(place: Place, images: Sequence[Mapping[str, Any]]) -> str:
    """Return the folder from which the list's file names count."""
    first = str(images[0]["file_name"]) if images else ""
    folder = place.find_folder(first.partition("/")[0])
    return folder[: -len(first.partition("/")[0]) - 1]


def _by_folder(place: Place) -> Contents:
    """Return the images of folders that hold the ranks of a species in their names, as those of 2021."""
    names: dict[str, str] = {}
    examples = []
    for folder in _taxon_folders(place):
        above, _, taxon = folder.rstrip("/").rpartition("/")
        names[taxon] = " ".join(taxon.split("_")[-2:])
        facts = {"code": taxon.partition("_")[0]}
        examples += [
            Example(path, names[taxon], split=split_of(above), facts=facts) for path in place.images(folder)
        ]
    return Contents(tuple(names[taxon] for taxon in sorted(names)), tuple(examples))


LAYOUT = Layout(
    name="inaturalist",
    title="iNaturalist 2017 to 2021",
    size="2018: 437,513 images to train and 24,426 of val, of 8,142 species, 120 GB",
    license="non-commercial research and education; each image has a license of its own",
    source="the competitions' page, github.com/visipedia/inat_comp",
    needs=("train2018.json", "val2018.json", "categories.json", "train_val2018/"),
    find=_find,
    read=_read,
)
