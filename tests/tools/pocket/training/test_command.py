"""Training of the pocket models and the oracle by their commands, in tiny sizes."""

import json
import shutil
from pathlib import Path

import pytest
from support.source_tree import FILES, imports, name

from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.pocket.train_oracle import train as train_oracle
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import render
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES
from pleinair.tools.pocket.detector import ConceptDetector
from pleinair.tools.pocket.training import encoder
from pleinair.tools.pocket.training.__main__ import main
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.detector import FrozenEncoder, Names
from pleinair.tools.pocket.training.images import TAUGHT, make_sample
from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.types import GenerateRequest

TRAINING = "pleinair.tools.pocket.training"
SHIPPED_MODELS = SHIPPED / "catalogue"
TRANSFORMER = "generator/transformer/diffusion_pytorch_model.safetensors"


def test_no_product_file_imports_the_training() -> None:
    inside = SHIPPED.parent / "training"
    product = [path for path in FILES if inside not in path.parents and not name(path).startswith("evals/")]
    assert len(product) > 100
    assert not [
        name(path) for path in product if any(target.startswith(TRAINING) for target in imports(path))
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose models are trained."""
    folder = tmp_path_factory.mktemp("sight")
    run = Run(folder / "weights", folder / "work", 1.0, resume=False, tiny=True)
    folders = ["--out", str(run.out), "--work", str(run.work)]
    main(["all", "--tiny", *folders])
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
    again = Path(shutil.copytree(folder, tmp_path / "again" / "generator"))
    main(["generator", "--tiny", "--resume", "--work", str(work), "--out", str(again.parent)])
    assert f"goes on from the weights in {again}" in capsys.readouterr().out


def test_the_exported_files_are_the_shipped_ones(run: Run) -> None:
    for part in run.out.iterdir():
        files, shipped = part.rglob("*.*"), (SHIPPED_MODELS / part.name).rglob("*.*")
        assert {file.relative_to(run.out) for file in files} == {
            file.relative_to(SHIPPED_MODELS) for file in shipped
        }


def test_a_finished_generator_is_exported_again(run: Run, tmp_path: Path) -> None:
    main(["generator", "--tiny", "--work", str(run.work), "--resume", "--out", str(tmp_path)])
    assert (tmp_path / TRANSFORMER).read_bytes() == (run.out / TRANSFORMER).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["all", "--tiny"], "add --out FOLDER"),
        (["decoder"], "invalid choice: 'decoder'"),
        (["encoder", "--minutes", "0"], "--minutes 0 is not above 0"),
    ],
)
def test_options_that_would_do_harm_or_nothing_are_refused(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert error in capsys.readouterr().err


def test_the_generator_needs_a_trained_autoencoder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shards").symlink_to(run.work / "shards")
    with pytest.raises(FileNotFoundError, match="train the part `autoencoder` first"):
        main(["generator", "--tiny", "--work", str(tmp_path), "--out", str(tmp_path / "weights")])


def test_the_oracle_knows_all_species(tmp_path: Path) -> None:
    path = tmp_path / "oracle.safetensors"
    train_oracle(Run(path, tmp_path / "work", minutes=1, resume=False, tiny=True))
    assert Oracle(path).names == [s.name for s in SPECIES]


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


def test_a_training_resumes_at_its_checkpoint(run: Run, tmp_path: Path) -> None:
    again = Run(tmp_path, run.work, 1.0, resume=True, tiny=True)
    encoder.train(again)
    names = ("open_clip_model.safetensors", "tokenizer.json")
    pairs = [(folder / "encoder" / name).read_bytes() for name in names for folder in (run.out, tmp_path)]
    assert pairs[0] == pairs[1] and pairs[2] == pairs[3]


def test_details_are_taught_the_names_of_what_they_show(run: Run) -> None:
    names = Names(FrozenEncoder(run.out / "encoder"))
    sample = make_sample(draw_scene(held_out_rng(3), [BY_NAME["taxi"]]))
    targets = names._targets([sample])
    taxi = [s.name for s in TAUGHT].index("taxi")
    assert set(targets.tolist()) == {-1, taxi, len(TAUGHT) + 1}
