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

CLASSES = ("black footed albatross", "mandarin duck", "common tern")
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

    def table(
        self,
        path: str,
        key: str,
        fields: Sequence[str],
        rows: Sequence[Sequence[object]],
        more: Mapping[str, object] | None = None,
    ) -> None:
        """Write rows as a struct array of MATLAB."""
        import numpy as np

        table = np.array([tuple(row) for row in rows], dtype=[(field, "O") for field in fields])
        self.mat(path, {key: table, **(more or {})})

    @staticmethod
    def cells(texts: Sequence[str]) -> object:
        """Return texts as a cell array of MATLAB."""
        import numpy as np

        return np.array([*texts], dtype=object)

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


def _inaturalist(writer: _Writer) -> Iterator[Example]:
    """Write the lists of 2018, which hide the names, and `categories.json` with them."""
    url, categories = "http://creativecommons.org/licenses/by/4.0/", list[dict[str, object]]()
    parts: dict[str, dict[str, list[object]]] = {}
    for n, name in enumerate(writer.classes):
        categories.append({"id": n, "name": name, "supercategory": "Aves", "genus": "Avis"})
    for count, (index, name, number, split) in enumerate(writer.each("val"), start=1):
        licenses: list[object] = [{"id": 4, "name": "Attribution", "url": url}]
        hidden: list[object] = [{**each, "name": f"Aves {each['id']}"} for each in categories]
        lists = {"images": [], "annotations": [], "licenses": licenses, "categories": hidden}
        value, path = parts.setdefault(split, lists), f"train_val2018/Aves/{index}/{count:032x}.jpg"
        writer.image(path, name, number)
        value["images"].append({"id": count, "file_name": path, "license": 4, "rights_holder": "Ada"})
        value["annotations"].append({"id": count, "image_id": count, "category_id": index})
        yield Example(path, name, (), split, {"code": str(index), "license": url, "author": "Ada"})
    for part, value in parts.items():
        writer.text(f"{part}2018.json", json.dumps(value))
    writer.text("categories.json", json.dumps(categories))


def _inaturalist_2021(writer: _Writer) -> Iterator[Example]:
    """Write folders of 2021 with the ranks in their names, without a list; the class is genus and species."""
    for index, name, number, split in writer.each("val"):
        taxon = f"{index:05d}_Animalia_Chordata_Aves_Passeriformes_Avidae_{'_'.join(name.split()[-2:])}"
        path = f"{split}/{taxon}/{number}.jpg"
        writer.image(path, name, number)
        yield Example(path, " ".join(name.split()[-2:]), (), split, {"code": f"{index:05d}"})


def _aircraft(writer: _Writer) -> Iterator[Example]:
    """Write the archive; the banner at the bottom of its images is in what `draw` returns, if anywhere."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for count, (_, name, number, split) in enumerate(writer.each(), start=1):
        path = f"fgvc-aircraft-2013b/data/images/{count:07d}.jpg"
        writer.image(path, name, number)
        lists[split].append(f"{count:07d} {name}")
        yield Example(path, name, (), split, {"manufacturer": "Ada Works"})
    for key, lines in lists.items():
        makers = [f"{line.partition(' ')[0]} Ada Works" for line in lines]
        writer.text(f"fgvc-aircraft-2013b/data/images_variant_{key}.txt", lines)
        writer.text(f"fgvc-aircraft-2013b/data/images_manufacturer_{key}.txt", makers)
    writer.text("fgvc-aircraft-2013b/data/variants.txt", writer.classes)


def _cars(writer: _Writer) -> Iterator[Example]:
    """Write the archives: two folders, the devkit, and the labels of test."""
    rows: dict[str, list[tuple[object, ...]]] = {"train": [], "test": []}
    for index, name, number, split in writer.each():
        file = f"{len(rows[split]) + 1:05d}.jpg"
        writer.image(f"cars_{split}/{file}", name, number)
        rows[split].append((1, 1, 9, 9, index + 1, file))
        yield Example(f"cars_{split}/{file}", name, split=split)
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    writer.table("devkit/cars_train_annos.mat", "annotations", fields, rows["train"])
    writer.table("cars_test_annos_withlabels.mat", "annotations", fields, rows["test"])
    writer.mat("devkit/cars_meta.mat", {"class_names": writer.cells(writer.classes)})


def _cars_in_one_list(writer: _Writer) -> Iterator[Example]:
    """Write `car_ims` with `cars_annos.mat`."""
    rows: list[tuple[object, ...]] = []
    for index, name, number, split in writer.each():
        path = f"car_ims/{len(rows) + 1:06d}.jpg"
        writer.image(path, name, number)
        rows.append((path, index + 1, int(split == "test")))
        yield Example(path, name, split=split)
    more = {"class_names": writer.cells(writer.classes)}
    writer.table("cars_annos.mat", "annotations", ("relative_im_path", "class", "test"), rows, more)


def _car_folders(writer: _Writer) -> Iterator[Example]:
    """Write class folders with the names of cars, made of the classes'."""
    for _, name, number, split in writer.each():
        car = f"Audi {name} 2012"
        path = f"car_data/car_data/{split}/{car}/{number:05d}.jpg"
        writer.image(path, name, number)
        yield Example(path, car, split=split)


def _dogs(writer: _Writer, lists: bool = True) -> Iterator[Example]:
    """Write the folders of breeds, with the two MATLAB lists."""
    paths: dict[str, list[str]] = {"train": [], "test": []}
    for index, name, number, split in writer.each():
        folder = f"{_synset(index)}-{name.replace(' ', '_')}"
        path = f"{folder}/{_synset(index)}_{number}.jpg"
        writer.image(f"Images/{path}", name, number)
        paths[split].append(path)
        yield Example(f"Images/{path}", name, (), split if lists else "", {"code": _synset(index)})
    for key, listed in paths.items() if lists else ():
        writer.mat(f"{key}_list.mat", {"file_list": writer.cells(listed)})


def _dogs_without_lists(writer: _Writer) -> Iterator[Example]:
    return _dogs(writer, lists=False)


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


def _flickr(writer: _Writer) -> Iterator[Example]:
    """Write Karpathy's list with the images."""
    examples, entries = zip(*_karpathy_entries(writer, "flickr30k-images"), strict=True)
    writer.text("dataset_flickr30k.json", json.dumps({"dataset": "flickr30k", "images": entries}))
    yield from examples


def _flickr_table(writer: _Writer) -> Iterator[Example]:
    """Write the table that copies Karpathy's list."""
    lines = ["raw,sentids,split,filename,img_id"]
    for count, (example, _) in enumerate(_karpathy_entries(writer, "flickr30k-images")):
        cell = json.dumps(example.captions).replace('"', '""')
        lines.append(f'"{cell}","[0]",{example.split},{Path(example.path).name},{count}')
        yield example
    writer.text("flickr_annotations_30k.csv", lines)


def _flickr_tokens(writer: _Writer) -> Iterator[Example]:
    """Write the archive's list, which has no splits."""
    lines = list[str]()
    for example, _ in _karpathy_entries(writer, "flickr30k-images"):
        lines += [f"{Path(example.path).name}#{n}\t{text}" for n, text in enumerate(example.captions)]
        yield replace(example, split="")
    writer.text("flickr30k/results_20130124.token", lines)


def _flickr_results(writer: _Writer) -> Iterator[Example]:
    """Write the list of another copy, one line of which lacks a bar."""
    lines = ["image_name| comment_number| comment"]
    for example, _ in _karpathy_entries(writer, "flickr30k_images/flickr30k_images"):
        lines += [f"{Path(example.path).name}| {n}| {text}" for n, text in enumerate(example.captions)]
        yield replace(example, split="")
    lines[-1] = "".join(lines[-1].rsplit("|", 1))
    writer.text("flickr30k_images/results.csv", lines)


_STYLES = ("Impressionism", "Cubism")


def _wikiart(writer: _Writer, suffix: str = "-1916") -> Iterator[Example]:
    """Write folders of styles: a class is the title of paintings, and the artist is Ada Lovelace."""
    for index, name, number, _ in writer.each():
        style, title = _STYLES[index % 2], f"{name} {number}"
        path = f"wikiart/{style}/ada-lovelace_{title.replace(' ', '-')}{suffix}.jpg"
        writer.image(path, name, number)
        facts = {"artist": "Ada Lovelace", "title": title, "style": style}
        yield Example(path, style, (f"{title} in the style of Ada Lovelace",), "", facts)


def _wikiart_lists(writer: _Writer) -> Iterator[Example]:
    """Write the lists of train and val, too."""
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for example, (index, *_, split) in zip(_wikiart(writer), writer.each("val"), strict=True):
        lists[split].append(f"{example.path.removeprefix('wikiart/')},{index % 2}")
        yield replace(example, split=split)
    for key, lines in lists.items():
        writer.text(f"wikiart_csv/style_{key}.csv", lines)


def _wikiart_table(writer: _Writer) -> Iterator[Example]:
    """Write a table with titles and artists, whose spelling the files' names do not have."""
    lines = ["file_name,title,artistName"]
    for example in _wikiart(writer, suffix=""):
        title = f"The {example.facts['title']}, Op. 1"
        lines.append(f'{example.path.removeprefix("wikiart/")},"{title}",Ada King-Noël')
        facts = {**example.facts, "title": title, "artist": "Ada King-Noël"}
        yield replace(example, captions=(f"{title} in the style of Ada King-Noël",), facts=facts)
    writer.text("wikiart/metadata.csv", lines)


def _imagenet_lt(writer: _Writer) -> Iterator[Example]:
    """Write ImageNet's folders with the lists of train and test, test being images of val."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for example, (index, *_, split) in zip(_imagenet(writer), writer.each(), strict=True):
        lists[split].append(f"{example.path} {index}")
        yield replace(example, split=split)
    for key, lines in lists.items():
        writer.text(f"ImageNet_LT_{key}.txt", lines)


def _imagenet_lt_flat(writer: _Writer) -> Iterator[Example]:
    """Write the lists over a flat folder `val`."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for example, (index, *_, split) in zip(_imagenet_flat(writer), writer.each(), strict=True):
        name = Path(example.path).name
        path = example.path if split == "train" else f"val/{_synset(index)}/{name}"
        lists[split].append(f"{path} {index}")
        yield replace(example, split=split)
    for key, lines in lists.items():
        writer.text(f"ImageNet_LT_{key}.txt", lines)


WRITERS: Mapping[str, Callable[[_Writer], Iterator[Example]]] = {
    "imagenet": _imagenet,
    "imagenet:flat": _imagenet_flat,
    "cub": _cub,
    "cub:without_captions": _cub_without_captions,
    "flowers": _flowers,
    "flowers:folders": _flower_folders,
    "inaturalist": _inaturalist,
    "inaturalist:2021": _inaturalist_2021,
    "aircraft": _aircraft,
    "cars": _cars,
    "cars:one_list": _cars_in_one_list,
    "cars:folders": _car_folders,
    "dogs": _dogs,
    "dogs:without_lists": _dogs_without_lists,
    "flickr30k": _flickr,
    "flickr30k:table": _flickr_table,
    "flickr30k:tokens": _flickr_tokens,
    "flickr30k:results": _flickr_results,
    "wikiart": _wikiart,
    "wikiart:lists": _wikiart_lists,
    "wikiart:table": _wikiart_table,
    "imagenet_lt": _imagenet_lt,
    "imagenet_lt:flat": _imagenet_lt_flat,
    "coco": _coco,
    "coco:karpathy": _coco_karpathy,
}
