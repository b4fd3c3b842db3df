"""Training of the pocket models: the command on its tiny configuration, and agreement with the pipeline."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from support.source_tree import FILES, imports, name

from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.detector import ConceptDetector
from pleinair.tools.pocket.invented.world import SPECIES, random_scene, render
from pleinair.tools.pocket.training.__main__ import main
from pleinair.tools.pocket.training.autoencoder import (
    PatchMap,
    build_autoencoder,
    fit_patch_map,
    sample_images,
    to_tensor,
)
from pleinair.tools.pocket.training.course import Muon, muon_and_adam, orthogonalise
from pleinair.tools.pocket.training.flow import LAYOUT, NOISE
from pleinair.tools.pocket.training.generator import invent
from pleinair.tools.pocket.training.networks import TEXT_LAYERS, Batch, Flow, draw_sigma
from pleinair.tools.pocket.training.pool import (
    KNOWN,
    build_part,
    build_tokenizer,
    draw_case,
    pack,
    write_training_prompts,
)
from pleinair.tools.pocket.training.streams import held_out_rng
from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.types import GenerateRequest

TRAINING = "pleinair.tools.pocket.training"
WEIGHTS = "generator/transformer/diffusion_pytorch_model.safetensors"


def test_no_product_file_imports_the_training() -> None:
    inside = SHIPPED.parent / "training"
    product = [path for path in FILES if inside not in path.parents and not name(path).startswith("evals/")]
    assert len(product) > 100
    assert not [
        name(path) for path in product if any(target.startswith(TRAINING) for target in imports(path))
    ]


def test_the_command_trains_and_exports_models_that_the_product_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = tmp_path / "weights", ["--tiny", "--work", str(tmp_path / "work")]
    main(["all", *command, "--out", str(out)])
    assert "part 5 of 5: generator" in capsys.readouterr().out
    for part in out.iterdir():
        files, shipped = part.rglob("*.*"), (SHIPPED / part.name).rglob("*.*")
        assert {file.relative_to(out) for file in files} == {file.relative_to(SHIPPED) for file in shipped}

    scene = random_scene(held_out_rng(1), SPECIES[:1])
    settings = json.loads((out / "generator" / "pocket.json").read_text("utf-8"))
    settings["slots"] = settings.pop("references")
    generator = InContext(folder=str(out / "generator"), wording="", inpaint=False, **settings)
    call = {key: settings[key] for key in ("height", "width", "num_inference_steps", "guidance_scale")}
    request = GenerateRequest(prompt="a velmora finch", seed=1, **call)
    assert generator.generate(request, [], lambda *_: None).size == (64, 64)
    encoder = OpenClipEncoder(f"local-dir:{out / 'encoder'}")
    assert encoder.encode_text(["a velmora finch"]).shape == (1, 128)
    (detection,) = ConceptDetector(out / "detector", out / "encoder").detect(render(scene), ["a red bird"])
    assert 0 <= detection.probability <= 1
    scorer = open_scorer(str(out / "adaptor"), encoder, lambda _: render(scene))
    assert scorer.score(["velmora finch"], ["a"]).shape == (1, 1)

    before = (out / WEIGHTS).read_bytes()
    main(["generator", *command, "--resume", "--out", str(tmp_path / "again")])
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["all", "--tiny"], "add --out FOLDER"),
        (["encoder", "--world", "catalogue"], "add --out FOLDER"),
        (["decoder", "--world", "catalogue"], "has no part 'decoder'; choose from all, encoder"),
        (["encoder", "--minutes", "0"], "--minutes 0 is not above 0"),
    ],
)
def test_options_that_would_do_harm_or_nothing_are_refused(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert error in capsys.readouterr().err


def test_the_generator_needs_a_trained_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train the part `autoencoder` first"):
        main(["generator", "--tiny", "--work", str(tmp_path), "--out", str(tmp_path / "weights")])


@pytest.fixture(scope="module")
def patch_map() -> PatchMap:
    return fit_patch_map(sample_images(60, first_index=0))


def test_the_encoder_is_the_patch_map(patch_map: PatchMap) -> None:
    images = sample_images(3, first_index=100)
    with torch.no_grad():
        latents = build_autoencoder(patch_map).encode(to_tensor(images)).latent_dist.mode().numpy()
    assert np.abs(latents - patch_map.encode(images)).max() < 0.02


def test_packing_is_the_pipelines() -> None:
    latents = torch.randn(2, 16, 16, 16)
    packed = Flux2KleinPipeline._pack_latents(Flux2KleinPipeline._patchify_latents(latents))
    assert np.array_equal(pack(latents.numpy()), packed.numpy())


def test_references_are_at_positions_ten_and_twenty() -> None:
    ids = LAYOUT.image_ids(2)
    assert ids.shape == (64 + 32, 4)
    assert sorted(set(ids[:, 0].tolist())) == [0, 10, 20]
    assert ids[63].tolist() == [0, 7, 7, 0]


def test_text_is_embedded_as_in_the_pipeline() -> None:
    tokenizer = build_tokenizer(300)
    flow = Flow(len(tokenizer), LAYOUT).eval()
    prompt = "a velmora finch at night"
    with torch.no_grad():
        expected = Flux2KleinPipeline._get_qwen3_prompt_embeds(
            flow.text_encoder,
            tokenizer,
            prompt,
            max_sequence_length=LAYOUT.text_tokens,
            hidden_states_layers=list(TEXT_LAYERS),
        )
        actual = flow.embed(*LAYOUT.tokenize(tokenizer, [prompt]))
    assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("references", [0, 1, 2])
def test_every_reference_count_has_a_gradient(patch_map: PatchMap, references: int) -> None:
    pool = build_part(patch_map, references, range(2))
    text = torch.zeros(2, LAYOUT.text_tokens, dtype=torch.long)
    batch = Batch(
        text,
        torch.ones_like(text),
        torch.from_numpy(pool.targets).float(),
        torch.from_numpy(pool.references).float(),
        torch.from_numpy(pool.covered).float(),
    )
    assert pool.references.shape == (2, 16 * references, 64)
    flow = Flow(10, LAYOUT)
    flow(batch, torch.randn(2, 64, 64), draw_sigma(2, torch.Generator().manual_seed(0), NOISE)).backward()
    assert flow.transformer.proj_out.weight.grad is not None


@pytest.mark.parametrize("references", [0, 1, 2])
def test_rare_and_novel_species_are_not_in_the_data(references: int) -> None:
    hidden = {s.name for s in SPECIES if s.tier != "known"}
    words = {word.split()[0] for word in hidden}
    for index in range(100):
        case = draw_case(held_out_rng(index), references)
        assert len(case.referenced) == references
        assert not hidden.intersection(s.name for s in (*case.subjects, *case.referenced))
    assert not any(word in prompt for prompt in write_training_prompts(300) for word in words)
    assert invent(random.Random(0), "bird").split()[0] not in words


def test_known_names_are_short_and_prompts_fit() -> None:
    tokenizer = build_tokenizer()
    lengths = [len(tokenizer(p)["input_ids"]) for p in write_training_prompts(500, first_index=10**6)]
    assert np.mean(np.array(lengths) <= LAYOUT.text_tokens) > 0.99
    assert np.mean([len(tokenizer.tokenize("a " + s.name)) for s in KNOWN]) < 4


def test_muon_steps_have_near_unit_singular_values() -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(24, 96)))
    assert 0.5 < values.min() and values.max() < 1.3
    kernel = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
    kernel.grad = torch.randn_like(kernel)
    Muon([kernel], lr=0.1).step()
    assert 0 < kernel.abs().max() < 0.2


def test_muon_steps_the_matrices_of_the_named_modules_and_adam_the_rest() -> None:
    model = torch.nn.ModuleDict({"mix": torch.nn.Linear(4, 4), "mixture": torch.nn.Linear(4, 4)})
    muon, adam = (optimizer.param_groups[0]["params"] for optimizer in muon_and_adam(model, ("mix",)))
    assert [id(p) for p in muon] == [id(model["mix"].weight)]
    assert len(adam) == 3
