"""Oxford Flowers-102 (Nilsback and Zisserman 2008): the archive with its lists, or numbered class folders."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pleinair.tools.data_sets.data_set import Contents, Example, Layout, Split
from pleinair.tools.data_sets.lists import only_present
from pleinair.tools.data_sets.place import Faults, Place

_SPLITS: tuple[tuple[str, Split], ...] = (("trnid", "train"), ("valid", "val"), ("tstid", "test"))
_FOLDERS: tuple[tuple[str, Split], ...] = (
    ("train", "train"),
    ("valid", "val"),
    ("val", "val"),
    ("test", "test"),
)
# The archive has numbers only. These are the categories in the order of the data set's page.
_PAGE = """
pink primrose; hard-leaved pocket orchid; canterbury bells; sweet pea; english marigold; tiger lily; moon
orchid; bird of paradise; monkshood; globe thistle; snapdragon; colt's foot; king protea; spear thistle;
yellow iris; globe-flower; purple coneflower; peruvian lily; balloon flower; giant white arum lily; fire
lily; pincushion flower; fritillary; red ginger; grape hyacinth; corn poppy; prince of wales feathers;
stemless gentian; artichoke; sweet william; carnation; garden phlox; love in the mist; mexican aster; alpine
sea holly; ruby-lipped cattleya; cape flower; great masterwort; siam tulip; lenten rose; barbeton daisy;
daffodil; sword lily; poinsettia; bolero deep blue; wallflower; marigold; buttercup; oxeye daisy; common
dandelion; petunia; wild pansy; primula; sunflower; pelargonium; bishop of llandaff; gaura; geranium; orange
dahlia; pink-yellow dahlia; cautleya spicata; japanese anemone; black-eyed susan; silverbush; californian
poppy; osteospermum; spring crocus; bearded iris; windflower; tree poppy; gazania; azalea; water lily; rose;
thorn apple; morning glory; passion flower; lotus; toad lily; anthurium; frangipani; clematis; hibiscus;
columbine; desert-rose; tree mallow; magnolia; cyclamen; watercress; canna lily; hippeastrum; bee balm; ball
moss; foxglove; bougainvillea; camellia; mallow; mexican petunia; bromelia; blanket flower; trumpet creeper;
blackberry lily
"""
NAMES = tuple(" ".join(name.split()) for name in _PAGE.split(";"))


def _find(place: Place) -> str:
    return place.find("imagelabels.mat", "setid.mat", "jpg/image_00001.jpg", "cat_to_name.json")


def _read(place: Place) -> Contents:
    names = _names(place)
    if not place.find("imagelabels.mat") and (listed := tuple(_by_folder(place, names))):
        return Contents(names, listed)
    labels, splits = _lists(place, len(names))
    root = place.find_folder("jpg")
    examples = (
        Example(f"{root}image_{number:05d}.jpg", names[label - 1], split=splits[number])
        for number, label in labels.items()
    )
    return Contents(names, *only_present(place, LAYOUT, examples))


def _lists(place: Place, classes: int) -> tuple[dict[int, int], dict[int, Split]]:
    """Return labels and splits by the images' numbers from 1; raise `BadInput` where they contradict."""
    for name in ("imagelabels.mat", "setid.mat"):
        if not place.find(name):
            raise LAYOUT.missing(name, "the data set's page, beside 102flowers.tgz (345 MB)")
    variables = place.mat(place.find("imagelabels.mat")), place.mat(place.find("setid.mat"))
    try:
        labels = {n: int(label) for n, label in enumerate(variables[0]["labels"].reshape(-1), start=1)}
        splits = {int(n): split for key, split in _SPLITS for n in variables[1][key].reshape(-1)}
    except (KeyError, AttributeError, ValueError):
        text = "imagelabels.mat must have `labels`, and setid.mat `trnid`, `valid` and `tstid`"
        raise LAYOUT.wrong(text) from None
    faults = Faults()
    for label in labels.values():
        if not 1 <= label <= classes:
            faults.add(f"labels outside 1 to {classes} in imagelabels.mat", label)
    for number in sorted(labels.keys() ^ splits.keys()):
        faults.add("images in only one of imagelabels.mat and setid.mat", number)
    LAYOUT.check(faults)
    return labels, splits


def _names(place: Place) -> tuple[str, ...]:
    """Return the names in the order of the labels: of `cat_to_name.json` if it is there, else of the page."""
    file = place.find("cat_to_name.json")
    if not file:
        return NAMES
    value = place.json(file)
    numbers = [str(number) for number in range(1, len(value) + 1)]
    if not isinstance(value, dict) or not all(isinstance(value.get(number), str) for number in numbers):
        raise LAYOUT.wrong(f"{file} must be an object with a name for each number from 1")
    return tuple(value[number] for number in numbers)


def _by_folder(place: Place, names: tuple[str, ...]) -> Iterator[Example]:
    """Yield the images of `train/1`, `valid/1` and so on; those without a class folder have no label."""
    for folder, split in _FOLDERS:
        root = place.find_folder(folder)
        for path in place.images(root) if root else ():
            label = re.match(r"(\d+)/", path[len(root) :])
            if label and not 1 <= int(label[1]) <= len(names):
                raise LAYOUT.wrong(f"the folder {root}{label[1]} is outside 1 to {len(names)}")
            if label:
                yield Example(path, names[int(label[1]) - 1], split=split)


LAYOUT = Layout(
    name="flowers",
    title="Oxford Flowers-102",
    size="8,189 images of 102 flowers, 345 MB",
    license="not stated by its authors; research use",
    source="Oxford's Visual Geometry Group, robots.ox.ac.uk/~vgg/data/flowers/102",
    needs=("jpg/image_00001.jpg", "imagelabels.mat", "setid.mat"),
    find=_find,
    read=_read,
)
