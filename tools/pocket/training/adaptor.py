"""Training of the pocket adaptor: Cross-modal RAG's dense scorer over the pocket encoder.

Learnable tokens attend to an image's patches, then to a sub-query, and the result is compared with the
sub-query. It belongs to the encoder whose id is in `config.json`.
"""

from collections.abc import Callable, Sequence

from PIL import Image

from pleinair.tools.pocket.invented.prompts import RELATIONS, caption, parse_prompt
from pleinair.tools.pocket.invented.world import Scene, random_scene, render
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.scenes import TAUGHT
from pleinair.tools.pocket.training.streams import training_rng
from pleinair.tools.retrieval.crossmodal import adaptor_training
from pleinair.tools.retrieval.crossmodal.examples import Example
from pleinair.tools.retrieval.encoder import OpenClipEncoder

FIRST_INDEX = 700_000_000
SCENES, EPOCHS, RATE = 3000, 14, 1e-3  # the paper's rate is 5e-5


def train(run: Run) -> None:
    """Train the adaptor on the run's encoder and captioned scenes of two species; it always starts anew."""
    scenes: dict[str, Scene] = {}
    examples = []
    for index in range(run.size(SCENES, 4)):
        rng = training_rng(FIRST_INDEX + index)
        scene = random_scene(rng, rng.sample(TAUGHT, 2), relation=rng.choice(RELATIONS))
        text = caption(rng, scene, by_name=True)
        scenes[str(index)] = scene
        examples.append(Example(str(index), text, parse_prompt(text).subjects))
    facts = fit(run, examples, lambda id: render(scenes[id]))
    write_card(run.out / "adaptor", "Pocket adaptor", __doc__ or "", facts)


def fit(
    run: Run, examples: Sequence[Example], open: Callable[[str], Image.Image], world: str = "invented"
) -> dict[str, str]:
    """Train the adaptor on the run's encoder and write its folder; return the rows of its card.

    `open` returns the image of an example's id.
    """
    folder, tower = run.out / "adaptor", OpenClipEncoder(f"local-dir:{run.out / 'encoder'}")
    options = adaptor_training.AdaptorOptions(epochs=run.size(EPOCHS, 1), learning_rate=RATE, device="cpu")
    epochs = adaptor_training.train(examples, folder, tower=tower, open=open, options=options, restart=True)
    for epoch, loss in epochs:
        run.say(f"adaptor: epoch {epoch} of {options.epochs}, loss {loss:.4f}")
    (folder / adaptor_training.CHECKPOINT).unlink()  # three times the weights, which are shipped
    return {
        "epochs": f"{options.epochs}, batches of {options.batch}, Adam {RATE:g}",
        "scenes": f"{len(examples):,} of two species, with captions that name them",
        "command": f"`python -m pleinair.tools.pocket.training adaptor --world {world}`",
    }
