"""The generator's training items and shards."""

from pathlib import Path

from pleinair.tools.pocket.catalogue.species import BY_NAME, KINDS, SPECIES
from pleinair.tools.pocket.training import pool
from pleinair.tools.pocket.training.cases import draw_item, held_out_rng, training_rng
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.flow import LAYOUT


def test_neither_a_rare_nor_a_novel_look_is_in_the_training() -> None:
    hidden = {(s.kind, tuple(sorted(s.looks.items()))) for s in SPECIES if s.tier != "known"}
    for index in range(400):
        item = draw_item(training_rng(index), index % 4)
        drawn = [subject.species for subject in item.scene.subjects]
        assert not hidden & {(s.kind, tuple(sorted(s.looks.items()))) for s in (*drawn, *item.referenced)}
        names = [BY_NAME[m.name].tier for m in item.request.mentions if m.name in BY_NAME]
        assert "novel" not in names


def test_invented_names_of_references_share_words_with_known_names() -> None:
    items = [draw_item(training_rng(index), 1) for index in range(400)]
    names = {mention.name for item in items for mention in item.request.mentions}
    invented = {name for name in names if name not in BY_NAME and name not in KINDS}
    known = {word for species in SPECIES if species.tier == "known" for word in species.name.split()}
    shared = {name for name in invented if known & set(name.split())}
    assert len(invented) / 4 < len(shared) < len(invented)


def test_references_are_in_the_order_of_their_subjects() -> None:
    for index in range(200):
        item = draw_item(training_rng(index), 2)
        drawn = [subject.species for subject in item.scene.subjects]
        assert [drawn.index(species) for species in item.referenced] == sorted(
            drawn.index(species) for species in item.referenced
        )


def test_references_face_as_their_subjects() -> None:
    for index in range(40):
        rng = training_rng(index)
        scene = (item := draw_item(rng, 2)).scene
        for species in item.referenced:
            in_scene = {figure.flip for figure in scene.figures if figure.species is species}
            assert {figure.flip for figure in pool.reference_scene(rng, scene, species).figures} == in_scene


def test_held_out_items_are_none_of_the_training() -> None:
    assert draw_item(held_out_rng(0), 0) != draw_item(training_rng(0), 0)


def test_shards_hold_tokens_prompts_and_references(tmp_path: Path) -> None:
    run = Run(tmp_path, tmp_path, 1.0, resume=False, tiny=True)
    pool.render_shards(run)
    paths = sorted((tmp_path / "shards").iterdir())
    assert {path.stem[-1] for path in paths} == {"0", "1", "2", "3"}
    shard = pool.load_shard(next(path for path in paths if path.stem.endswith("-2")))
    assert shard.targets.shape == (4, LAYOUT.image_tokens, 64)
    assert shard.references.shape == (4, 2 * LAYOUT.reference_tokens, 64)
    assert shard.covered.shape == (4, LAYOUT.image_tokens)
    assert [len(prompts) for prompts in shard.prompts] == [4] * 4
    before = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    pool.render_shards(run)
    assert paths[1].exists() and paths[0].stat().st_mtime_ns == before
