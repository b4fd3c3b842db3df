"""Reader of the columns beside images in Parquet and Arrow files, and of their data set's description."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pleinair.tools.retrieval.readers.folder import Description, Folder
from pleinair.tools.retrieval.readers.records import LICENSE_KEYS, SOURCE_KEYS, describe, load_json
from pleinair.tools.retrieval.readers.texts import decode

INFO = "dataset_info.json"  # of `datasets`, beside the files
_CREDITS = {
    "license": LICENSE_KEYS[-1],
    "homepage": SOURCE_KEYS[-1],
}  # of all rows: their own keys come first


class RowColumns:
    """Reader of the rows whose images containers hold; a problem's line is the number of a row."""

    rank = 15

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield what the other columns of a row say of its image."""
        credits: dict[str, dict[str, Any]] = {}
        for container, image, stored in folder.source.rows():
            below = os.path.dirname(container)
            if below not in credits:
                credits[below] = _credits(folder, f"{below}/{INFO}".lstrip("/"))
            record = {**credits[below], **stored.record}
            if record:
                yield describe(folder, container, image, record, stored.line)


def _credits(folder: Folder, file: str) -> dict[str, Any]:
    """Return license and source of a whole data set, as far as its description has them."""
    data = folder.read(file) if file in folder.files else None
    about = load_json(decode(data)) if data else None
    about = about if isinstance(about, Mapping) else {}
    credits = {key: about.get(field) for field, key in _CREDITS.items()}
    return {key: value for key, value in credits.items() if isinstance(value, str) and value.strip()}
