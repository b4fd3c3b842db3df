"""Columns of an evaluation: what each prompt's retriever returns."""

from pathlib import Path

import pytest

from pleinair.app.engines import build
from pleinair.app.paths import places
from pleinair.app.settings import load
from pleinair.evals.evaluate.columns import LOOP, NONE, RETRIEVED, TRUE, LibraryStudio, top_hits, works_of
from pleinair.evals.evaluate.concepts import concepts_of
from pleinair.evals.evaluate.split import split_library
from pleinair.tools.pocket.catalogue.library import write_library
from pleinair.tools.retrieval.library import Library


def test_columns_differ_in_the_retriever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_PATHS__HOME", str(tmp_path / "home"))
    write_library(tmp_path / "library", size=120, tiers=("rare",))
    library = Library.open(tmp_path / "library")
    split = split_library(library, concepts_of(library), most=3, images=1, seeds=1, seed=0)
    settings = load("pocket", overrides={"library.folder": [str(tmp_path / "library")]})
    studio = LibraryStudio(tmp_path / "out", split=split)
    context = build(settings, places(settings.paths.home), studio.store)
    works = {work.arm.variant: work for work in works_of(split, settings)}
    assert list(works) == [NONE, RETRIEVED, TRUE, LOOP]
    for subject in split.subjects:
        pools = {name: studio.context_for(work, subject, context).retriever for name, work in works.items()}
        found = {
            name: [[hit.id for hit in pool.search(query, 1)] for query in ("at night", subject.group)]
            for name, pool in pools.items()
        }
        best = [hit.id for hit in top_hits(subject, pools[LOOP], context)][:1]
        assert found[RETRIEVED] == [best, best]
        assert found[TRUE] == [[split.part[subject.group].reference]] * 2
        assert found[LOOP] == found[NONE] and found[LOOP][0] != found[LOOP][1]
        assert not {id for ids in (*found[LOOP], best) for id in ids} & split.excluded
