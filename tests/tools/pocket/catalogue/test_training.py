"""Training of the catalogue world's models and the oracle, in tiny sizes."""

import json
import shutil
from pathlib import Path

import pytest

from pleinair.evals.pocket import catalogue_models
from pleinair.evals.pocket.oracle import CATALOGUE_WEIGHTS, Oracle
from pleinair.evals.pocket.train_oracle import WORLDS
from pleinair.evals.pocket.train_oracle import train as train_oracle
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.pocket.catalogue.captions import named
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import render
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES
from pleinair.tools.pocket.detector import ConceptDetector
from pleinair.tools.pocket.training.__main__ import main
from pleinair.tools.pocket.training.catalogue import detector, encoder
from pleinair.tools.pocket.training.catalogue.cases import held_out_rng
from pleinair.tools.pocket.training.catalogue.samples import TAUGHT, make_sample
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.presence import PHRASES, FrozenEncoder, Names, World
from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.types import GenerateRequest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose models are trained."""
    folder = tmp_path_factory.mktemp("sight")
    run = Run(folder / "weights", folder / "work", 1.0, resume=False, tiny=True)
    folders = ["--out", str(run.out), "--work", str(run.work)]
    main(["all", "--world", "catalogue", "--tiny", *folders])
    oracle = Run(run.out / CATALOGUE_WEIGHTS.name, run.work, 1.0, resume=False, tiny=True)
    train_oracle(oracle, WORLDS["catalogue"])
    return run


def test_the_generator_draws_from_references_and_its_training_goes_on_from_its_weights(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run.out / "generator"
    settings = json.loads((folder / "pocket.json").read_text("utf-8"))
    settings["slots"] = settings.pop("references")
    generator = InContext(folder=str(folder), wording="", inpaint=False, **settings)
    call = {key: settings[key] for key in ("height", "width", "num_inference_steps", "guidance_scale")}
    request = GenerateRequest(prompt="a hoopoe on a beach", seed=1, **call)
    assert generator.generate(request, [], lambda *_: None).size == (96, 96)

    work = tmp_path / "work"
    work.mkdir()
    (work / "shards").symlink_to(run.work / "shards")
    shutil.copy(run.work / "decoder.pt", work)
    main(
        [
            "generator",
            "--world",
            "catalogue",
            "--tiny",
            "--resume",
            "--work",
            str(work),
            "--out",
            str(run.out),
        ]
    )
    assert f"goes on from the weights in {folder}" in capsys.readouterr().out


@pytest.fixture(scope="module")
def world() -> World:
    return detector.training_world(texts=50)


def test_the_product_loads_what_was_trained(run: Run) -> None:
    tower = OpenClipEncoder(f"local-dir:{run.out / 'encoder'}")
    assert tower.encode_text(["a hoopoe"]).shape == (1, 128)
    image = render(draw_scene(held_out_rng(0), [BY_NAME["hoopoe"]]))
    concepts = ConceptDetector(run.out / "detector", run.out / "encoder")
    hoopoe, stork = concepts.detect(image, ["a hoopoe", "a painted stork"])
    assert 0 <= hoopoe.probability <= 1
    assert (hoopoe.unknown, stork.unknown) == ("", "painted stork")
    assert stork.probability < 0.5
    scorer = open_scorer(str(run.out / "adaptor"), tower, lambda _: image)
    assert scorer.score(["hoopoe"], ["a"]).shape == (1, 1)
    assert Oracle(run.out / CATALOGUE_WEIGHTS.name).names == [s.name for s in SPECIES]


def test_the_measures_are_printed_and_written_into_the_cards(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("encoder", "detector", "oracle"):
        catalogue_models.main(["--folder", str(run.out), "--model", model, "--each", "6", "--cards"])
    printed = capsys.readouterr().out
    assert "encoder: R@1, rare, name → image: " in printed
    assert "detector: precision, names, clean images: " in printed
    assert "oracle: right species, one subject, clean images: " in printed
    assert "| R@1, known, name → image |" in (run.out / "encoder" / "MODEL_CARD.md").read_text("utf-8")


def test_a_training_resumes_at_its_checkpoint(run: Run, tmp_path: Path) -> None:
    again = Run(tmp_path, run.work, 1.0, resume=True, tiny=True)
    encoder.train(again)
    names = ("open_clip_model.safetensors", "tokenizer.json")
    pairs = [(folder / "encoder" / name).read_bytes() for name in names for folder in (run.out, tmp_path)]
    assert pairs[0] == pairs[1] and pairs[2] == pairs[3]


def test_phrases_fit_as_they_say(world: World) -> None:
    wrong_names = 0
    for index in range(60):
        rng = held_out_rng(index)
        view = world.make_view(rng)
        shown = [subject.species for subject in view.sample.scene.subjects]
        queries = world.make_queries(rng, view)
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


def test_novel_species_are_untaught(world: World) -> None:
    novel = {species.name for species in SPECIES if species.tier == "novel"}
    assert world.untaught.keys() == novel
    assert not novel & set(world.names)
    assert {"hoopoe", "crest", "photo"} <= set(world.words)
    assert "waxwing" not in world.words


def test_details_are_taught_the_names_of_what_they_show(run: Run) -> None:
    names = Names([s.name for s in TAUGHT], FrozenEncoder(run.out / "encoder"))
    sample = make_sample(draw_scene(held_out_rng(3), [BY_NAME["taxi"]]))
    targets = names._targets([sample])
    taxi = [s.name for s in TAUGHT].index("taxi")
    assert set(targets.tolist()) == {-1, taxi, len(TAUGHT) + 1}
