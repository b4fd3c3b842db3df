"""Add a reader of captions in one file: `python examples/reader.py`.

A package makes it available to every library with three lines in its `pyproject.toml`, which `main` imitates
here:

    [project.entry-points."pleinair.reader"]
    contact_sheet = "reader:ContactSheet"

It reads `contact.txt`, which has lines of the form `wren.png | a wren on a branch | Ada`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.readers.folder import BadName, Description, Folder, Problem


class ContactSheet:
    """Reader of `contact.txt` in the library's folder."""

    rank = 15  # after the tables (10 to 14), before the files beside the images (20)

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield caption and author of each line; report lines that cannot be used."""
        if "contact.txt" not in folder.files:
            return
        text = (folder.read("contact.txt") or b"").decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), start=1):
            name, caption, author = [*map(str.strip, line.split("|")), "", ""][:3]
            try:
                yield Description(folder.find(name), caption=caption, author=author)
            except BadName as error:
                folder.report(Problem("contact.txt", str(error), number))


def main(folder: str = "out/reader") -> None:
    """Install the entry point into a folder on the path, as pip does, and read a library."""
    info = Path(folder, "contact_sheet-1.0.dist-info")
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: contact_sheet\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(
        "[pleinair.reader]\ncontact_sheet = reader:ContactSheet\n", encoding="utf-8"
    )
    sys.path[:0] = [str(info.parent), str(Path(__file__).parent)]
    library_folder = Path(folder, "images")
    library_folder.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), "brown").save(library_folder / "IMG_0001.png")
    (library_folder / "contact.txt").write_text("IMG_0001.png | a wren | Ada\nlost.png | a finch", "utf-8")
    library = Library.open(library_folder)
    for item in library.items.values():
        print(f"{item.id}: {item.caption}, by {item.author}, from the reader {item.captioned_by}")
    print(*library.problems)


if __name__ == "__main__":
    main(*sys.argv[1:])
