"""Training of the catalogue world's adaptor: Cross-modal RAG's dense scorer over its encoder.

Learnable tokens attend to an image's patches, then to a sub-query, and the result is compared with the
sub-query. It belongs to the encoder whose id is in `config.json`.
"""

from pleinair.tools.pocket.catalogue.captions import caption
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import Scene, render
from pleinair.tools.pocket.training.adaptor import SCENES, fit
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.catalogue.cases import training_rng
from pleinair.tools.pocket.training.catalogue.samples import TAUGHT
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.retrieval.crossmodal.examples import Example

FIRST_INDEX = 1_400_000_000


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
    facts = fit(run, examples, lambda id: render(scenes[id]), "catalogue")
    write_card(run.out / "adaptor", "Pocket adaptor", __doc__ or "", facts, world="catalogue")
