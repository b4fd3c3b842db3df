"""Training of the pocket adaptor: Cross-modal RAG's dense scorer over the pocket encoder.

Learnable tokens attend to an image's patches, then to a sub-query, and the result is compared with the
sub-query. It belongs to the encoder whose id is in `config.json`.
"""

from pleinair.tools.pocket.catalogue.captions import caption
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import Scene, render
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.cases import training_rng
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.images import TAUGHT
from pleinair.tools.retrieval.crossmodal import adaptor_training
from pleinair.tools.retrieval.crossmodal.examples import Example
from pleinair.tools.retrieval.encoder import OpenClipEncoder

FIRST_INDEX = 1_400_000_000
SCENES, EPOCHS, RATE = 3000, 14, 1e-3  # the paper's rate is 5e-5


def train(run: Run) -> None:
    """Train the adaptor on the run's encoder and captioned scenes of two species; it always starts anew."""
    scenes: dict[str, Scene] = {}
    examples = []
    for index in range(run.size(SCENES, 4)):
        rng = training_rng(FIRST_INDEX + index)
        species = rng.sample(TAUGHT, 2)
        scene = draw_scene(rng, species)
        scenes[str(index)] = scene
        names = tuple(s.name for s in species)
        examples.append(Example(str(index), caption(rng, scene, by_name=True).words, names))
    folder, tower = run.out / "adaptor", OpenClipEncoder(f"local-dir:{run.out / 'encoder'}")
    options = adaptor_training.AdaptorOptions(epochs=run.size(EPOCHS, 1), learning_rate=RATE, device="cpu")
    epochs = adaptor_training.train(
        examples, folder, tower=tower, open=lambda id: render(scenes[id]), options=options, restart=True
    )
    for epoch, loss in epochs:
        run.say(f"adaptor: epoch {epoch} of {options.epochs}, loss {loss:.4f}")
    (folder / adaptor_training.CHECKPOINT).unlink()  # three times the weights, which are shipped
    facts = {
        "epochs": f"{options.epochs}, batches of {options.batch}, Adam {RATE:g}",
        "scenes": f"{len(examples):,} of two species, with captions that name them",
        "command": "`python -m pleinair.tools.pocket.training adaptor`",
    }
    write_card(folder, "Pocket adaptor", __doc__ or "", facts)
