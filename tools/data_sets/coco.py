"""COCO's captions (Lin et al. 2014, Chen et al. 2015): the archives of 2014 or 2017, or Karpathy's split.

In Karpathy's split, `restval` is in no split ("" here): the 82,783 images of `train` are those of train2014.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pleinair.tools.data_sets.data_set import NO_FACTS, Contents, Example, Layout, Split
from pleinair.tools.data_sets.lists import licenses_of, only_present, records
from pleinair.tools.data_sets.place import Faults, Place

_SPLITS: tuple[Split, ...] = ("train", "val")
_YEARS = ("2017", "2014")
KARPATHY: dict[str, Split] = {"train": "train", "val": "val", "test": "test", "restval": ""}
_ARCHIVE = "caption_datasets.zip of Karpathy's split, or annotations_trainval2017.zip (241 MB)"


def _find(place: Place) -> str:
    lists = [f"captions_{split}{year}.json" for year in _YEARS for split in _SPLITS]
    return place.find("dataset_coco.json", *lists) or place.find_folder(
        "train2017", "train2014", "val2017", "val2014"
    )


def _read(place: Place) -> Contents:
    if file := place.find("dataset_coco.json"):
        listed = [*_karpathy(place, file)]
    else:
        listed = [*_archives(place)]
    return Contents((), *only_present(place, LAYOUT, listed))


def karpathy_images(
    place: Place, layout: Layout, file: str
) -> Iterator[tuple[dict[str, Any], tuple[str, ...], Split]]:
    """Yield each image of a list of Karpathy's with its captions and split."""
    faults = Faults()
    for image in records(layout, file, place.json(file), "images", "filename", "split", "sentences"):
        split, name = image["split"], image["filename"]
        raw = (each["raw"] for each in records(layout, file, image, "sentences", "raw"))
        captions = tuple(" ".join(str(text).split()) for text in raw)
        if split not in KARPATHY:
            faults.add(f"splits that are none of {', '.join(KARPATHY)}", split)
        elif not any(captions):
            faults.add("images without a caption", name)
        else:
            yield image, captions, KARPATHY[split]
    layout.check(faults, file)


def _karpathy(place: Place, file: str) -> Iterator[Example]:
    images = [*karpathy_images(place, LAYOUT, file)]
    folders = {name: place.find_folder(name) for name in ("train2014", "val2014", "train2017", "val2017")}
    renamed: dict[str, str] = {}  # the names of 2017 by those of 2014, where only the former are there
    if not folders["train2014"] and not folders["val2014"]:
        roots = [folder for folder in folders.values() if folder]
        names = {
            f"{root}{image.get('cocoid', 0):012d}.jpg": image["filename"]
            for root in roots
            for image, *_ in images
        }
        renamed = {names[path]: path for path in place.present(names)}
    for image, captions, split in images:
        name = image["filename"]
        root = folders.get(image.get("filepath", ""), "")
        yield Example(renamed.get(name, f"{root}{name}"), captions=captions, split=split)


def _archives(place: Place) -> Iterator[Example]:
    years = [year for year in _YEARS if any(place.find(f"captions_{split}{year}.json") for split in _SPLITS)]
    if not years:
        raise LAYOUT.missing("annotations/captions_train2017.json", _ARCHIVE)
    if len(years) > 1:  # of the same images; those that are there decide
        years = [year for year in years if place.find_folder(f"train{year}", f"val{year}")]
    if len(years) != 1:
        raise LAYOUT.wrong(
            "captions of 2017 and of 2014 are there; keep the captions or the images of one year"
        )
    for split in _SPLITS:
        if file := place.find(f"captions_{split}{years[0]}.json"):
            yield from _of_archive(place, file, f"{split}{years[0]}", split)


def _of_archive(place: Place, file: str, folder: str, split: Split) -> Iterator[Example]:
    value, faults = place.json(file), Faults()
    root = place.find_folder(folder) or f"{folder}/"
    images = {each["id"]: each for each in records(LAYOUT, file, value, "images", "id", "file_name")}
    captions: dict[object, list[str]] = {number: [] for number in images}
    for note in records(LAYOUT, file, value, "annotations", "image_id", "caption"):
        if note["image_id"] not in captions:
            faults.add("captions of images that are not listed", note["image_id"])
        else:
            captions[note["image_id"]].append(" ".join(str(note["caption"]).split()))
    for number, texts in captions.items():
        if not texts:
            faults.add("images without a caption", images[number]["file_name"])
    LAYOUT.check(faults, file)
    licenses = licenses_of(LAYOUT, file, value)
    for number, image in images.items():
        facts = {"license": licenses.get(image.get("license"), ""), "source": image.get("flickr_url", "")}
        used = {key: text for key, text in facts.items() if text} or NO_FACTS
        yield Example(
            f"{root}{image['file_name']}", captions=tuple(captions[number]), split=split, facts=used
        )


LAYOUT = Layout(
    name="coco",
    title="COCO captions",
    size="118,287 images to train (18 GB), 5,000 of val (1 GB), 5 captions each",
    license="captions CC BY 4.0; each image has a license of its own, under Flickr's terms",
    source="cocodataset.org; Karpathy's split: cs.stanford.edu/people/karpathy/deepimagesent",
    needs=(
        "annotations/captions_train2017.json or dataset_coco.json",
        "train2017/ or train2014/",
        "val2017/ or val2014/",
    ),
    find=_find,
    read=_read,
)
