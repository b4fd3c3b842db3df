"""Readers of names: the folder that an image is in, as data sets of classes have them, and its own.

Names that programs, cameras and habit give are no captions: numbers, dates, hashes, `IMG_1234`, `train`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pleinair.tools.retrieval.containers.container import SUFFIXES
from pleinair.tools.retrieval.readers.folder import Description, Folder

_GENERIC = frozenset(  # words that name no subject by themselves
    "image images img imgs picture pictures pic pics photo photos photograph photographs foto fotos "
    "bild bilder camera cam roll dcim scan scans scanned raw jpg jpeg png webp heic tif tiff gif file "
    "files data dataset datasets train training test testing val valid validation eval class classes "
    "category categories label labels library lib album albums folder new old misc other others various "
    "unsorted sorted untitled unnamed unknown tmp temp download downloads upload uploads export exports "
    "exported edit edited edits final copy kopie backup original originals resized cropped crop small "
    "large big full hd thumb thumbs thumbnail part batch set page frame frames video vid mov clip "
    "screenshot screenshots screen shot capture bildschirmfoto whatsapp telegram signal instagram "
    "facebook fb snapchat twitter pinterest image2 at am pm the a an and of january february march "
    "april may june july august september october november december jan feb mar apr jun jul aug sep "
    "sept oct nov dec my me bw wa iphone android samsung canon nikon sony comfyui output outputs out "
    "result results sample samples generated input inputs source sources src assets media content "
    "public static from utc attachments attachment pasted jpegimages flickr".split()
)
_CAMERA = re.compile(  # the beginnings of the names that cameras, phones and programs give
    r"(?:_?(?:img|dsc[nf]?|dscf|pict|pxl|mvimg|vid|gopr|gp|dji|sam|imag|cimg|p|r|kif|hpim|mg|wp|burst|pano|"
    r"ms|c360|snapchat|received|fb_img|signal|orig|comfyui|grid)[-_ ]?\d{2,}|\d{3}[a-z_]{4,5}$)",
    re.IGNORECASE,
)
_SEPARATORS = re.compile(r"[\W_]+")
_HASH = re.compile(
    r"(?=.*\d)[0-9a-f]{8,}|(?=.*\d)(?=.*[a-z])[0-9a-z]{10,}|[0-9a-f]{16,}|n\d{6,}", re.IGNORECASE
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_COUNTER = re.compile(r"(?:\d+|v\d+|\d+x\d+|\d+px|x\d+|[a-z]\d+|\d+[a-z]|\d+mm|wa\d+)", re.IGNORECASE)


_CODE = re.compile(r"n\d{8}-|\d{3}\.(?=[A-Z])")  # before the name of a class: Stanford Dogs', CUB's
_ONLY_CODE = re.compile(r"n\d{8}|\d+")
_TAXON = re.compile(r"\d{5}_(?:[A-Z][a-z]+_){4,5}([A-Z][a-z]+)_([a-z-]+)")


class ClassFolders:
    """Reader of class folders: `birds/hoopoe/001.jpg` is a hoopoe; the nearest name counts."""

    rank = 40

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield the nearest folder's name that is no generic one, for every image that has one."""
        captions = {"": ""}
        for image in folder.images:
            if caption := _of_folder(os.path.dirname(image), captions):
                yield Description(image, caption)


class FileNames:
    """Reader of the images' own names: `hoopoe_02.jpg` is a hoopoe."""

    rank = 50

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield the words of every image's name that has some."""
        for image in folder.images:
            if caption := subject_of(os.path.splitext(os.path.basename(image))[0]):
                yield Description(image, caption)


def _of_folder(folder: str, captions: dict[str, str]) -> str:
    """Return the caption of a folder; `captions` has those of folders so far."""
    ancestry = [folder]
    while ancestry[-1] not in captions:
        ancestry.append(os.path.dirname(ancestry[-1]))
    caption = captions[ancestry[-1]]
    for place in reversed(ancestry[:-1]):
        if not place.lower().endswith(SUFFIXES):  # of a container
            caption = _class_of(os.path.basename(place)) or caption
        captions[place] = caption
    return captions[folder]


def without_code(folder: str) -> str:
    """Return a class folder's name without the code that a data set gives it, "" where there is nothing else.

    "n02086240-Shih-Tzu" is "Shih-Tzu", "001.Black_footed_Albatross" "Black footed Albatross", a folder with
    all ranks of a species (iNaturalist's of 2021) is the species, and "n01440764" and "2761" are nothing.
    """
    if match := _TAXON.fullmatch(folder):
        return f"{match[1]} {match[2]}"
    name = " ".join(_CODE.sub("", folder, count=1).split("_"))
    return "" if _ONLY_CODE.fullmatch(name) else name


def _class_of(folder: str) -> str:
    """Return the class that a folder's name states, "" for none."""
    name = without_code(folder)
    return name if _CODE.match(folder) and subject_of(name) else subject_of(name)


def subject_of(name: str) -> str:
    """Return the words of a name as a caption, "" if it says nothing about what is shown."""
    if _CAMERA.match(name):
        return ""
    words = [word for word in _SEPARATORS.split(_UUID.sub(" ", name)) if word and not _HASH.fullmatch(word)]
    while words and _COUNTER.fullmatch(words[-1]):
        words.pop()
    while words and _COUNTER.fullmatch(words[0]):
        words.pop(0)
    if not any(_says_something(word) for word in words):
        return ""
    return " ".join(words)


def _says_something(word: str) -> bool:
    letters = sum(map(str.isalpha, word))
    is_script = any(ord(char) > 0x2E7F for char in word)  # a sign can be a word
    return word.lower().rstrip("0123456789") not in _GENERIC and (letters >= 3 or (is_script and letters > 0))
