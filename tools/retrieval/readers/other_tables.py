"""Reader of tables of any name: `train.csv`, `results.csv`, `captions_train2017.json`, `captions.txt`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pleinair.tools.retrieval.readers.folder import Description, Folder
from pleinair.tools.retrieval.readers.tables import Csv, JsonLines, JsonTable, Table, Tsv


class OtherTables:
    """Reader of the tables that no reader before has read, if a row of one says something about an image.

    Parquet tables have their usual names only.
    """

    rank = 25

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield what such tables contain about images, those nearest to the images first."""
        readers: dict[str, Table] = {
            table.suffix: table for table in (JsonLines(), JsonTable(), Csv(), Tsv())
        }
        readers[".txt"] = readers[".token"] = Tsv()  # the latter is Flickr30K's
        for file in sorted(set(folder.files) - folder.used, key=lambda file: (-file.count("/"), file)):
            table = readers.get(os.path.splitext(file)[1].lower())
            if table and not folder.find_beside(file):
                yield from _read(table, folder, file)


def _read(table: Table, folder: Folder, file: str) -> list[Description]:
    """Return what a table says of images; if nothing, its problems are those of another program's file."""
    problems, count = list(folder.problems), folder.problem_count
    descriptions = [each for each in table.read_table(folder, file) if each != Description(each.image)]
    if not descriptions:
        folder.problems, folder.problem_count = problems, count
        folder.used.discard(file)
    return descriptions
