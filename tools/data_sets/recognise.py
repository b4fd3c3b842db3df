"""Recognise which published data set a folder holds, and read it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from pleinair.tools.data_sets import (
    aircraft,
    cars,
    coco,
    cub,
    dogs,
    flickr30k,
    flowers,
    imagenet,
    imagenet_lt,
    inaturalist,
    wikiart,
)
from pleinair.tools.data_sets.data_set import MARK, Contents, DataSet, Layout
from pleinair.tools.data_sets.place import Faults, Place
from pleinair.tools.types import BadInput

_SHOWN = 12  # names in a folder that are listed
_NEAR = 2  # levels below a folder in which its data set is recognised
_PACKED = r"[^/]+\.(?:zip|tar|tgz|tar\.gz|7z|rar)"
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        module.LAYOUT.name: module.LAYOUT
        for module in (
            *(imagenet, inaturalist, cub, aircraft, cars, dogs, flowers),
            *(coco, flickr30k, wikiart, imagenet_lt),
        )
    }
)

_IMAGES = {  # folders of images of the data sets whose lists are in one archive of Karpathy's
    "coco": ("train2014", "val2014", "train2017", "val2017"),
    "flickr30k": ("flickr30k-images", "flickr30k_images"),
}


def recognise(folder: Path, layout: str = "") -> DataSet:
    """Return the data set in a folder; of several in one folder that of a named layout.

    Raises:
        BadInput: there is no folder or layout, none or several data sets, or a list that is missing or wrong.
    """
    if layout and layout not in LAYOUTS:
        raise BadInput(f"layout = {layout!r}: unknown; accepted: {', '.join(LAYOUTS)}.")
    place = Place(Path(folder).expanduser())
    if MARK in place.files():
        remedy = "Name the data set's own folder."
        raise BadInput(f"{folder} is a library that was written from a data set.", remedy)
    marks = _marks(place, layout)
    if not marks or layout not in ("", *marks):
        raise BadInput(_unknown(place), _remedy(place))
    if len(marks) > 1 and not layout:
        names = ", ".join(f"{name} (by {mark})" for name, mark in marks.items())
        raise BadInput(f"{folder} holds several data sets: {names}.", "Name the folder of one of them.")
    recognised = LAYOUTS[layout or next(iter(marks))]
    contents = recognised.read(place)
    return DataSet(recognised, place.folder, *contents[:2], (*contents.problems, *_about_classes(contents)))


def recognise_all(
    folder: Path, wanted: Iterable[str] = LAYOUTS
) -> tuple[dict[str, DataSet], dict[str, BadInput]]:
    """Return the data sets in a folder or in its folders by layout, and what is wrong with the others.

    Lists may lie beside the folder of the images or in it, so a reading without splits, or without the
    captions that a layout can have, is tried from another folder too; that with more of them counts.

    Raises:
        BadInput: there is no folder, or no data set in it.
    """
    above = Place(folder.expanduser()).folder
    inner = sorted(path for path in above.iterdir() if path.is_dir() and not path.name.startswith("."))
    places = {each: _layouts(Place(each)) for each in (above, *inner)}
    if not any(places.values()):
        recognise(above)  # raises
    data_sets, faults = dict[str, DataSet](), dict[str, BadInput]()
    for name in dict.fromkeys(wanted):
        folders = [each for each, names in places.items() if name in names]
        if len(places[above]) > 1:  # lists of others lie in it too
            folders.sort(key=lambda each: each == above)
        readings = list[DataSet]()
        for each in folders:
            try:
                readings.append(recognise(each, name))
            except BadInput as error:
                faults.setdefault(name, error)
            if readings and all(_extent(readings[-1])):
                break
        if readings:
            data_sets[name] = max(readings, key=_extent)
            faults.pop(name, None)
    return data_sets, faults


def _layouts(place: Place) -> frozenset[str]:
    return frozenset() if MARK in place.files() else frozenset(_marks(place, "all"))


def _extent(data_set: DataSet) -> tuple[int, int]:
    """Return the images in a split, and the captions, or 1 where a layout has none of its own."""
    examples, has_captions = data_set.examples, bool(data_set.layout.captions)
    captions = sum(len(example.captions) for example in examples) if has_captions else 1
    return sum(bool(example.split) for example in examples), captions


def layouts_of(folder: Path) -> tuple[Layout, ...]:
    """Return the layouts that a folder seems to have, by its names alone; none of a written library."""
    place = Place(folder)
    return () if MARK in place.files() else tuple(LAYOUTS[name] for name in _marks(place))


def _marks(place: Place, layout: str = "") -> dict[str, str]:
    """Return by what each layout is recognised; without a `layout`, ImageNet-LT's lists hide ImageNet."""
    marks = {name: mark for name, each in LAYOUTS.items() if (mark := each.find(place))}
    if "imagenet_lt" in marks and not layout:  # its lists lie over ImageNet's folders
        marks.pop("imagenet", None)
    owners = [name for name, folders in _IMAGES.items() if place.find_folder(*folders)]
    if _IMAGES.keys() <= marks.keys() and len(owners) == 1 and not layout:
        marks = {name: mark for name, mark in marks.items() if name in owners or name not in _IMAGES}
    return marks


def _about_classes(contents: Contents) -> tuple[str, ...]:
    """Return texts about classes without an image, and about several of one name."""
    faults, splits = Faults(), defaultdict[str, set[str]](set)
    for example in contents.examples:
        splits[example.split].add(example.class_name)
    present = set[str]().union(*splits.values())
    for name in contents.class_names:
        if name not in present:
            faults.add("classes without an image", name)
        for split in ("train", "val", "test"):
            if name in present and split in splits and name not in splits[split]:
                faults.add(f"classes without an image of {split}", name)
    for name, count in Counter(contents.class_names).items():
        if count > 1:
            faults.add("names of several classes, which `code` tells apart", name)
    return faults.texts()


def _remedy(place: Place) -> str:
    layouts = "".join(
        f"\n  {layout.name}: {layout.title}, by {', '.join(layout.needs)}" for layout in LAYOUTS.values()
    )
    if packed := place.find_like(_PACKED):
        action = f"Unpack {packed} and the other archives first: they are not read while packed."
    elif title := _above(place):
        action = f"Name the folder above it, {place.folder.resolve().parent}: it holds {title}."
    else:
        action = "Name the folder that a data set's archives were unpacked in."
    return f"{action} Accepted:{layouts}"


def _above(place: Place) -> str:
    """Return the title of a data set of the folder above that has images in this one, "" for none."""
    folder = place.folder.resolve()
    for name, mark in _marks(Place(folder.parent), "all").items():
        with suppress(BadInput):
            if mark.rstrip("/").count("/") < _NEAR and any(
                example.path.startswith(f"{folder.name}/")
                for example in recognise(folder.parent, name).examples
            ):
                return LAYOUTS[name].title
    return ""


def _unknown(place: Place) -> str:
    names = [*(f"{name}/" for name in place.folders("")), *place.files()]
    present = f"{', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}" or "nothing"
    return f"No data set is recognised in {place.folder}, which has {present}."
