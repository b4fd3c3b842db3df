"""Images of a library to train on: those that a published data set keeps for it, else all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.tools.data_sets.data_set import DataSet
from pleinair.tools.data_sets.place import Place
from pleinair.tools.data_sets.recognise import layouts_of, recognise
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.retrieval.library import Library

_CODE = r"n\d{8}([-_ ].*)?|\d{3}\..+|\d{5}_.+|\d+"  # at the beginning of data sets' class folders


class UnreadLists(BadInput):
    """A data set with a list that is missing or wrong, whose class folders have codes."""


def published(library: Library) -> DataSet | None:
    """Return the published data set whose folder a library is, None for any other library.

    Raises:
        UnreadLists: one of the data set's lists is missing or wrong, and its class folders have codes.
        BadInput: it is only one of several folders.
    """
    data_sets = [data_set for folder in library.folders if (data_set := _data_set_in(folder))]
    if data_sets and len(library.folders) > 1:
        raise BadInput(
            f"{data_sets[0].folder} is {data_sets[0].layout.title}, which is trained on alone.",
            "Write a library of it with `python -m pleinair.evals data FOLDER --library OUT`, and name OUT.",
        )
    return data_sets[0] if data_sets else None


def training_part(library: Library, data_set: DataSet | None) -> Library:
    """Return the library of the images that a data set keeps to train on; all where it keeps none."""
    examples = data_set.split("train") if data_set else ()
    return library.part([example.path for example in examples], "train") if examples else library


def _data_set_in(folder: Path) -> DataSet | None:
    """Return the published data set in a folder, None for none and for a library written from one."""
    if not layouts_of(folder):
        return None
    try:
        return recognise(folder)
    except BadInput as error:
        codes = [name for names in Place(folder).parents(_CODE).values() for name in names]
        if not codes:
            return None
        text = f"{error.message} The class folder {codes[0]!r} is named by a code."
        raise UnreadLists(text, error.remedy) from error
