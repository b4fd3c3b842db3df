"""Stanford Cars (Krause et al. 2013): the archives with MATLAB lists, or folders with the classes' names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pleinair.tools.data_sets.data_set import Contents, Example, Layout, Split, split_of
from pleinair.tools.data_sets.lists import only_present
from pleinair.tools.data_sets.place import Faults, Place

_CAR = (  # "AM General Hummer SUV 2000"
    r"(?:AM|Acura|Aston|Audi|BMW|Bentley|Bugatti|Buick|Cadillac|Chevrolet|Chrysler|Daewoo|Dodge|Eagle|FIAT|"
    r"Ferrari|Fisker|Ford|GMC|Geo|HUMMER|Honda|Hyundai|Infiniti|Isuzu|Jaguar|Jeep|Lamborghini|Land|Lincoln|"
    r"MINI|Maybach|Mazda|McLaren|Mercedes-Benz|Mitsubishi|Nissan|Plymouth|Porsche|Ram|Rolls-Royce|Scion|"
    r"Spyker|Suzuki|Tesla|Toyota|Volkswagen|Volvo|smart) .+ (?:19|20)\d{2}"
)
_DEVKIT = "car_devkit.tgz (330 kB)"
_PARTS: tuple[tuple[str, str, Split], ...] = (
    ("cars_train_annos.mat", "cars_train", "train"),
    ("cars_test_annos_withlabels.mat", "cars_test", "test"),
)


def _find(place: Place) -> str:
    parents = (f"{below}{names[0]}/" for below, names in place.parents(_CAR).items())
    lists = [file for file, _, _ in _PARTS]
    return place.find("cars_meta.mat", "cars_annos.mat", *lists) or next(parents, "")


def _read(place: Place) -> Contents:
    file, has_parts = place.find("cars_annos.mat"), place.find_folder("cars_train", "cars_test")
    if file and (place.find_folder("car_ims") or not has_parts):  # a copy of Kaggle's has it with both parts
        return _of_one_list(place, file)
    if not _has_lists(place) and place.parents(_CAR):
        return _by_folder(place)
    if not (meta := place.find("cars_meta.mat")):
        raise LAYOUT.missing("cars_meta.mat", _DEVKIT)
    names = _class_names(place, meta)
    examples = [example for part in _PARTS for example in _of_part(place, names, *part)]
    return Contents(names, *only_present(place, LAYOUT, examples))


def _has_lists(place: Place) -> bool:
    return bool(place.find("cars_meta.mat", *(file for file, _, _ in _PARTS)))


def _class_names(place: Place, file: str) -> tuple[str, ...]:
    names = place.mat(file).get("class_names")
    if names is None:
        raise LAYOUT.wrong(f"{file} has no `class_names`")
    return tuple(str(name).strip() for name in names.reshape(-1))


def _rows(place: Place, file: str, *fields: str) -> list[tuple[Any, ...]]:
    table = place.mat(file).get("annotations")
    if table is None or not set(fields) <= set(table.dtype.names or ()):
        raise LAYOUT.wrong(f"{file} has no table `annotations` with {', '.join(fields)}")
    return [tuple(row[field] for field in fields) for row in table.reshape(-1)]


def _of_part(place: Place, names: tuple[str, ...], file: str, folder: str, split: Split) -> list[Example]:
    root, listed = place.find_folder(f"{folder}/{folder}", folder), place.find(file)
    if not root and not listed:
        return []
    if not listed:
        raise LAYOUT.missing(
            file, _DEVKIT if split == "train" else "the data set's page, as a file of its own"
        )
    rows = _rows(place, listed, "fname", "class")
    return [
        *_examples(((f"{root or f'{folder}/'}{name}", label, split) for name, label in rows), names, listed)
    ]


def _of_one_list(place: Place, file: str) -> Contents:
    """Return the images of `car_ims`, with all labels in one list."""
    names = _class_names(place, file)
    root = place.find_folder("car_ims").removesuffix("car_ims/")
    rows = _rows(place, file, "relative_im_path", "class", "test")
    triples = ((f"{root}{path}", label, "test" if test else "train") for path, label, test in rows)
    return Contents(names, *only_present(place, LAYOUT, _examples(triples, names, file)))


def _examples(triples: Any, names: tuple[str, ...], file: str) -> Iterator[Example]:
    faults = Faults()
    for path, label, split in triples:
        if not 1 <= int(label) <= len(names):
            faults.add(f"labels outside 1 to {len(names)} in {file}", label)
        else:
            yield Example(path, names[int(label) - 1], split=split)
    LAYOUT.check(faults)


def _by_folder(place: Place) -> Contents:
    examples, names = list[Example](), set[str]()
    for below, folders in place.parents(_CAR).items():
        split = split_of(below)
        names.update(folders)
        examples += [
            Example(path, name, split=split) for name in folders for path in place.images(f"{below}{name}/")
        ]
    return Contents(tuple(sorted(names)), tuple(examples))


LAYOUT = Layout(
    name="cars",
    title="Stanford Cars",
    size="16,185 images of 196 cars, 1.9 GB",
    license="non-commercial research only",
    source="Stanford's AI Lab, ai.stanford.edu/~jkrause/cars (its archives are often unreachable)",
    needs=(
        "cars_train/, cars_test/",
        "cars_meta.mat, cars_train_annos.mat and cars_test_annos_withlabels.mat",
        "or instead class folders such as train/AM General Hummer SUV 2000/",
    ),
    find=_find,
    read=_read,
)
