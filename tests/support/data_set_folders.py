"""Tiny made-up folders in the layouts of published data sets, with the examples that are in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from zlib import crc32

from PIL import Image

from pleinair.tools.data_sets.data_set import Example, Split

CLASSES = ("black footed albatross", "saverel wren", "common tern")
Draw = Callable[[str, int], Image.Image]  # of a class's name and the image's number


def write_data_set(
    layout: str,
    folder: Path,
    classes: Sequence[str] = CLASSES,
    *,
    train: int = 2,
    test: int = 1,
    draw: Draw | None = None,
    captions: Sequence[str] = (),
    variant: str = "",
) -> tuple[Example, ...]:
    """Write a folder of a layout, and return the examples that it holds.

    Args:
        layout: name of the layout, as in `LAYOUTS`.
        folder: where the archive's own folders are written.
        classes: names of the classes in lower case; data sets of captions have one image set a class, too.
        train: images of a class to train.
        test: images of a class of the split that the layout tests on: `test`, or `val` where it has no other.
        draw: returns an image of a class; a noisy one unless given.
        captions: texts in which "{}" is the class's name, where there are captions; five or ten unless given.
        variant: another form of the same data set; see the writer of the layout.
    """
    writer = _Writer(folder, tuple(classes), train, test, draw or noisy, tuple(captions))
    return tuple(WRITERS[f"{layout}:{variant}" if variant else layout](writer))


def noisy(name: str, number: int) -> Image.Image:
    """Return an image of 24 x 24 pixels that is another one for each class and number."""
    state = crc32(f"{name} {number}".encode())
    data = bytearray()
    for _ in range(24 * 24 * 3):
        state = (state * 1103515245 + 12345) % 2**31
        data.append(state >> 16 & 0xFF)
    return Image.frombytes("RGB", (24, 24), bytes(data))


class _Writer:
    """Images and lists of one folder."""

    def __init__(
        self,
        folder: Path,
        classes: tuple[str, ...],
        train: int,
        test: int,
        draw: Draw,
        captions: tuple[str, ...],
    ) -> None:
        self.folder, self.classes, self.draw, self.captions = folder, classes, draw, captions
        self.counts = {"train": train, "test": test}

    def each(self, test: Split = "test") -> Iterator[tuple[int, str, int, Split]]:
        """Yield the class's number and name, the number of the image in it, and the split of each image."""
        for (index, name), (part, count) in product(enumerate(self.classes), self.counts.items()):
            first = self.counts["train"] if part == "test" else 0
            for number in range(first, first + count):
                yield index, name, number, test if part == "test" else "train"

    def image(self, path: str, name: str, number: int) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        self.draw(name, number).convert("RGB").save(file, "JPEG", quality=95)

    def text(self, path: str, lines: Sequence[object] | str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lines if isinstance(lines, str) else "".join(f"{line}\n" for line in lines), "utf-8")

    def mat(self, path: str, variables: Mapping[str, object]) -> None:
        from scipy.io import savemat

        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        savemat(self.folder / path, dict(variables))

    def texts(self, name: str, number: int, count: int) -> tuple[str, ...]:
        texts = self.captions or tuple(f"view {n} of the {{}}, image {number}" for n in range(count))
        return tuple(text.format(name) for text in texts)


def _cub(writer: _Writer, captions: bool = True) -> Iterator[Example]:
    """Write the archive's folder, with Reed's captions beside it."""
    folders = [f"{n:03d}.{name.capitalize().replace(' ', '_')}" for n, name in enumerate(writer.classes, 1)]
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    for count, (index, name, number, split) in enumerate(writer.each(), start=1):
        path = f"{folders[index]}/{folders[index][4:]}_{number:04d}_{count}.jpg"
        writer.image(f"CUB_200_2011/images/{path}", name, number)
        lists["images"].append(f"{count} {path}")
        lists["image_class_labels"].append(f"{count} {index + 1}")
        lists["train_test_split"].append(f"{count} {int(split == 'train')}")
        texts = writer.texts(name, number, 10) if captions else ()
        if captions:
            writer.text(f"text_c10/{path.replace('.jpg', '.txt')}", texts)
        yield Example(f"CUB_200_2011/images/{path}", name.capitalize(), texts, split)
    for key, lines in lists.items():
        writer.text(f"CUB_200_2011/{key}.txt", lines)
    writer.text("CUB_200_2011/classes.txt", [f"{n} {folder}" for n, folder in enumerate(folders, start=1)])


def _cub_without_captions(writer: _Writer) -> Iterator[Example]:
    return _cub(writer, captions=False)


def _flowers(writer: _Writer) -> Iterator[Example]:
    """Write the archive, the two MATLAB lists beside it, and the names as `cat_to_name.json`."""
    labels, ids = [], {"trnid": [], "valid": [], "tstid": []}  # type: tuple[list[int], dict[str, list[int]]]
    for count, (index, name, number, split) in enumerate(writer.each(), start=1):
        path = f"jpg/image_{count:05d}.jpg"
        writer.image(path, name, number)
        labels.append(index + 1)
        ids["trnid" if split == "train" else "tstid"].append(count)
        yield Example(path, name, split=split)
    writer.mat("imagelabels.mat", {"labels": labels})
    writer.mat("setid.mat", ids)
    writer.text(
        "cat_to_name.json", json.dumps({str(n): name for n, name in enumerate(writer.classes, start=1)})
    )


def _flower_folders(writer: _Writer) -> Iterator[Example]:
    """Write numbered class folders in `train` and `test`, as a course of PyTorch has them."""
    for index, name, number, split in writer.each():
        path = f"{split}/{index + 1}/image_{number:05d}.jpg"
        writer.image(path, name, number)
        yield Example(path, name, split=split)
    writer.text(
        "cat_to_name.json", json.dumps({str(n): name for n, name in enumerate(writer.classes, start=1)})
    )


def _synset(index: int) -> str:
    return f"n{1440764 + index:08d}"


def _synset_facts(index: int, name: str) -> dict[str, str]:
    return {"code": _synset(index), "names": f"{name}, Avis {index}"}


def _imagenet(writer: _Writer) -> Iterator[Example]:
    """Write folders of synsets in `train` and `val`, and `LOC_synset_mapping.txt`."""
    lines = [f"{_synset(n)} {_synset_facts(n, name)['names']}" for n, name in enumerate(writer.classes)]
    writer.text("LOC_synset_mapping.txt", lines)
    for count, (index, name, number, split) in enumerate(writer.each("val"), start=1):
        file = f"{_synset(index)}_{number}" if split == "train" else f"ILSVRC2012_val_{count:08d}"
        path = f"{split}/{_synset(index)}/{file}.JPEG"
        writer.image(path, name, number)
        yield Example(path, name, (), split, _synset_facts(index, name))


def _imagenet_flat(writer: _Writer) -> Iterator[Example]:
    """Write the archives as they unpack: flat `val` with the devkit's MATLAB table and ground truth."""
    import numpy as np

    rows, truth = [], []
    for n, name in enumerate(writer.classes):  # the devkit's numbers are in another order than the synsets
        rows.append((len(writer.classes) - n, _synset(n), _synset_facts(n, name)["names"], 0))
    for index, name, number, split in writer.each("val"):
        path = f"train/{_synset(index)}/{_synset(index)}_{number}.JPEG"
        if split == "val":
            truth.append(rows[index][0])
            path = f"val/ILSVRC2012_val_{len(truth):08d}.JPEG"
        writer.image(path, name, number)
        yield Example(path, name, (), split, _synset_facts(index, name))
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    inner = (len(rows) + 1, "n00001740", "entity", 2)
    writer.mat("ILSVRC2012_devkit_t12/data/meta.mat", {"synsets": np.array([*rows, inner], dtype=kinds)})
    writer.text("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth)


def _coco(writer: _Writer) -> Iterator[Example]:
    """Write the archives of 2017."""
    licenses = [{"id": 3, "url": "http://creativecommons.org/licenses/by-nc-nd/2.0/", "name": "NoDerivs"}]
    parts: dict[str, dict[str, list[object]]] = {}
    for count, (_, name, number, split) in enumerate(writer.each("val"), start=1):
        value = parts.setdefault(split, {"images": [], "annotations": [], "licenses": [*licenses]})
        file, texts, source = f"{count:012d}.jpg", writer.texts(name, number, 5), f"http://flickr.com/{count}"
        writer.image(f"{split}2017/{file}", name, number)
        value["images"].append({"id": count, "file_name": file, "license": 3, "flickr_url": source})
        value["annotations"] += [
            {"image_id": count, "id": n, "caption": text} for n, text in enumerate(texts)
        ]
        facts = {"license": str(licenses[0]["url"]), "source": source}
        yield Example(f"{split}2017/{file}", captions=texts, split=split, facts=facts)
    for part, value in parts.items():
        writer.text(f"annotations/captions_{part}2017.json", json.dumps(value))


def _karpathy_entries(writer: _Writer, folder: str) -> Iterator[tuple[Example, dict[str, object]]]:
    for count, (_, name, number, split) in enumerate(writer.each(), start=1):
        file, texts = f"{count:012d}.jpg", writer.texts(name, number, 5)
        path = f"{folder}/{file}"
        writer.image(path, name, number)
        entry = {"filepath": folder, "filename": file, "split": split, "cocoid": count}
        yield (
            Example(path, captions=texts, split=split),
            {**entry, "sentences": [{"raw": text} for text in texts]},
        )


def _coco_karpathy(writer: _Writer) -> Iterator[Example]:
    """Write `val2014` with Karpathy's list, the last image of which is in `restval`."""
    examples, entries = zip(*_karpathy_entries(writer, "val2014"), strict=True)
    entries[-1]["split"] = "restval"
    writer.text("dataset_coco.json", json.dumps({"dataset": "coco", "images": entries}))
    yield from (*examples[:-1], replace(examples[-1], split=""))


WRITERS: Mapping[str, Callable[[_Writer], Iterator[Example]]] = {
    "imagenet": _imagenet,
    "imagenet:flat": _imagenet_flat,
    "cub": _cub,
    "cub:without_captions": _cub_without_captions,
    "flowers": _flowers,
    "flowers:folders": _flower_folders,
    "coco": _coco,
    "coco:karpathy": _coco_karpathy,
}
