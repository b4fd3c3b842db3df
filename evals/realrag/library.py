"""Write the libraries of RealRAG's comparison: clean pictures of every species, and look-alikes of some.

A look-alike is no species: its caption tells what is seen and no name, so that nothing learns from it as a
positive, and whoever finds it has found the wrong picture. It may be a reflective negative.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.evals.papers.cases import look_alike
from pleinair.tools.pocket.library import AUTHOR, LICENSE, SOURCE, write_novel
from pleinair.tools.pocket.prompts import caption
from pleinair.tools.pocket.world import SPECIES, random_scene, render
from pleinair.tools.retrieval.realrag.data import pairs_by_name

if TYPE_CHECKING:
    from pleinair.tools.retrieval.library import Library

TIERS = ("known", "rare", "novel")
NAMES = [species.name for species in SPECIES]


def write_library(folder: Path, seed: int, each: int, look_alikes: int) -> None:
    """Write `each` clean pictures of every species and so many look-alikes of rare and novel ones."""
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    write_novel(draft, seed=seed, each=each, tiers=TIERS)
    rng = random.Random(f"look-alikes-{seed}")
    with (draft / "metadata.jsonl").open("a", encoding="utf-8") as file:
        for number in range(look_alikes):
            twin, _ = look_alike(rng)
            scene, name = random_scene(rng, [twin]), f"look-alike-{number:05d}.png"
            render(scene).save(draft / name)
            facts = {"license": LICENSE, "source": f"{SOURCE}/{seed}/{name}", "author": AUTHOR}
            said = {"file_name": name, "text": caption(rng, scene, named=False)}
            file.write(json.dumps(said | facts) + "\n")
    draft.rename(folder)


def names_of(library: Library, ids: Iterable[str]) -> list[str]:
    """Give the species of each picture, which its caption names; a look-alike's is empty."""
    named = {pair.id: pair.label for pair in pairs_by_name(library.items.values(), NAMES)}
    return [named.get(id, "") for id in ids]
