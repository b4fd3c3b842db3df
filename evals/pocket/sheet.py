"""Draw a sheet of images for a person to look at: `python -m pleinair.evals.pocket.sheet --out sheet.png`.

Each case has its draft, the references that were used and the result, of rare and novel species in turn; the
pages are `sheet-1.png`, `sheet-2.png` and so on. With `--marks` the oracle tells which marks of the species
came across (`pleinair.evals.pocket.marks`), and their shares are printed; 100 cases have more than 200 marks.
The library has the novel species too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, ImageDraw

from pleinair.agent.context import Context
from pleinair.app.settings import assignments
from pleinair.evals.cases import Case, Tier, cluster, make_case
from pleinair.evals.metrics import estimate
from pleinair.evals.pocket.marks import LEAST_RIGHT, MarkProbes
from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.run import invoke, pocket_context, show_progress
from pleinair.graphs import pleinair
from pleinair.tools.images.crops import cut
from pleinair.tools.pocket.catalogue.library import write_library, write_novel
from pleinair.tools.pocket.catalogue.scenes import SIZE
from pleinair.tools.pocket.catalogue.species import BY_NAME, Species
from pleinair.tools.types import ModelFault

TIERS: tuple[Tier, ...] = ("rare", "novel")
COLUMNS, ROWS = 2, 10  # cases on a page
PANELS = 4  # images of a case: draft, up to two references, result
SIDE = 2 * SIZE  # pixels of a panel
LABEL = 28  # pixels above the panels: two lines of text

Marks = Mapping[str, bool | None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Images of a case, and which marks of its species draft, result and the last case's result show."""

    case: Case
    draft: Image.Image
    references: tuple[Image.Image, ...]
    result: Image.Image
    draft_marks: Marks = field(default_factory=dict)
    result_marks: Marks = field(default_factory=dict)
    chance_marks: Marks = field(default_factory=dict)


def _draw(cases: Sequence[Case], context: Context, probes: MarkProbes | None = None) -> Iterator[Drawn]:
    """Run the loop on cases of one species each; a case without an image is left out."""
    last: tuple[Species, Image.Image] | None = None
    for case in cases:
        output = invoke(case, pleinair.graph, context, failures=ModelFault)
        best = output.outcome.best if output.outcome else None
        if best is None:
            continue
        draft, result = (context.store.open(item.picture) for item in (output.attempts[0], best))
        references = [cut(context.store.open(item.picture), item.crop) for item in best.request.references]
        species = BY_NAME[case.species[0]]
        drawn = Drawn(case, draft, tuple(references), result)
        if probes:
            drawn = replace(
                drawn,
                draft_marks=probes.marks(draft, species),
                result_marks=probes.marks(result, species),
                chance_marks=_by_chance(probes, last, species),
            )
        yield drawn
        last = (species, result)


def _by_chance(probes: MarkProbes, last: tuple[Species, Image.Image] | None, species: Species) -> Marks:
    """Return which marks the probes find in the result of another species, of those that it lacks."""
    if last is None:
        return {}
    other, image = last
    marks = probes.marks(image, species)
    return {mark: shown for mark, shown in marks.items() if other.looks.get(mark) != species.looks[mark]}


def pages(drawn: Sequence[Drawn]) -> Iterator[Image.Image]:
    """Draw the cases, up to `COLUMNS` × `ROWS` on a page."""
    size = COLUMNS * ROWS
    for start in range(0, len(drawn), size):
        rows = -(-len(drawn[start : start + size]) // COLUMNS)
        page = Image.new("RGB", (COLUMNS * PANELS * SIDE, rows * (SIDE + LABEL)), "white")
        for number, item in enumerate(drawn[start : start + size]):
            row, column = divmod(number, COLUMNS)
            page.paste(_block(item), (column * PANELS * SIDE, row * (SIDE + LABEL)))
        yield page


def _block(drawn: Drawn) -> Image.Image:
    """Draw a case: its prompt, its marks, and the images with the result at the right."""
    block = Image.new("RGB", (PANELS * SIDE, SIDE + LABEL), "white")
    text = f"{drawn.case.tier}: {drawn.case.prompt}\n{describe_marks(drawn.result_marks)}"
    ImageDraw.Draw(block).multiline_text((4, 1), text, fill="black", spacing=1)
    panels = {0: drawn.draft, PANELS - 1: drawn.result}
    panels |= dict(enumerate(drawn.references[: PANELS - 2], start=1))
    for column, image in panels.items():
        enlarged = image.convert("RGB").resize((SIDE - 4, SIDE - 4), Image.Resampling.NEAREST)
        block.paste(enlarged, (column * SIDE + 2, LABEL))
    return block


def describe_marks(marks: Marks) -> str:
    """Return marks in words: "crest, no bill, wings?", the last of which no probe can tell."""
    words = {True: "{}", False: "no {}", None: "{}?"}
    return ", ".join(words[shown].format(mark) for mark, shown in marks.items())


def shares_of_marks(drawn: Sequence[Drawn]) -> dict[str, dict[str, Any]]:
    """Return the share of the marks that draft and result show, with its 95 % interval over species.

    That of the last case's result, an image of a species without the marks, is what probes find by chance.
    """
    shares = {}
    for name, marks in (
        ("draft", [item.draft_marks for item in drawn]),
        ("result", [item.result_marks for item in drawn]),
        ("last case's result", [item.chance_marks for item in drawn]),
    ):
        pairs = [
            (float(shown), cluster(item.case))
            for item, of_image in zip(drawn, marks, strict=True)
            for shown in of_image.values()
            if shown is not None
        ]
        shares[name] = estimate([shown for shown, _ in pairs], 0, 1, groups=[group for _, group in pairs])
    return shares


def library_settings(folder: Path) -> dict[str, Any]:
    """Write the world's library and one of the novel species; return the settings that retrieve from them.

    Words of captions count, as in any library with captions: the encoder never learnt the novel names. Near
    copies stay, since images of one species on one background are as alike as copies of a photograph.
    """
    write_library(folder / "library")
    write_novel(folder / "novel")
    return {
        "library": [str(folder / "library"), str(folder / "novel")],
        "retrieval.drop_near_copies": False,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the cases and write the pages; with --marks, print the shares of the marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/sheet.png"), help="name of the pages")
    parser.add_argument("--cases", type=int, default=60, help="cases (60)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the cases (1)")
    parser.add_argument("--marks", action="store_true", help="tell which marks came across")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    options = parser.parse_args(arguments)
    cases = [make_case(TIERS[number % 2], number // 2, options.seed) for number in range(options.cases)]
    drawn: list[Drawn] = []
    with TemporaryDirectory() as folder:
        settings = assignments(options.set)
        if "library" not in settings:
            settings = library_settings(Path(folder)) | settings
        context = pocket_context(Path(folder), settings)
        for item in _draw(cases, context, MarkProbes(Oracle()) if options.marks else None):
            drawn.append(item)
            show_progress(f"{len(drawn)}/{len(cases)} {item.case.prompt}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages(drawn), start=1):
        path = options.out.with_stem(f"{options.out.stem}-{number}")
        page.save(path)
        print(path)
    if options.marks:
        _print_shares(drawn)


def _print_shares(drawn: Sequence[Drawn]) -> None:
    """Print the share of marks that came across, and how many no probe can tell."""
    for name, share in shares_of_marks(drawn).items():
        mean, (low, high) = share["mean"] or 0.0, share["ci"] or (0.0, 1.0)
        species = f"{share['n']} marks, {share['groups']} species"
        print(f"marks of the {name}: {mean:.1%} (95 % {low:.1%} to {high:.1%}; {species})")
    unclear = sum(shown is None for item in drawn for shown in item.result_marks.values())
    print(f"not judged, for lack of a probe that is right on {LEAST_RIGHT:.0%} of renders: {unclear}")


if __name__ == "__main__":
    main()
