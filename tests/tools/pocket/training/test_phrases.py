"""Phrases that the concept detector is asked for in its training."""

from pleinair.tools.pocket.catalogue.captions import named
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.pocket.training.detector import (
    PHRASES,
    UNTAUGHT,
    make_queries,
    make_view,
    training_words,
)


def test_phrases_fit_as_they_say() -> None:
    wrong_names = 0
    for index in range(60):
        rng = held_out_rng(index)
        view = make_view(rng)
        shown = [subject.species for subject in view.sample.scene.subjects]
        queries = make_queries(rng, view)
        assert len(queries) == PHRASES
        assert all(query.fits for query in queries[: len(shown)])
        assert not any(query.fits for query in queries[len(shown) :])
        for query in queries:
            name = query.words.removeprefix("a photo of ").removeprefix("a ").removeprefix("an ")
            if name in BY_NAME:
                assert query.fits == any(named(BY_NAME[name]).looks[0].fits(s) for s in shown)
                wrong_names += not query.fits
            assert (query.patches.sum() > 0) <= query.fits
    assert wrong_names > 20


def test_novel_species_are_untaught() -> None:
    novel = {species.name for species in SPECIES if species.tier == "novel"}
    assert UNTAUGHT.keys() == novel
    words = set(training_words(50))
    assert {"hoopoe", "crest", "photo"} <= words
    assert "waxwing" not in words
