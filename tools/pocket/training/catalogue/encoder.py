"""Training of the catalogue world's encoder: an open_clip model of some 1.7 M parameters for 96 × 96 images.

A caption finds its image, and a patch the phrase of the subject it belongs to. Rare species are in the data,
novel ones are not; looks that are no species appear under their description alone.
"""

from collections.abc import Iterator

from pleinair.tools.pocket.catalogue.captions import phrase, scene_text
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import SIZE
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.catalogue.cases import training_rng
from pleinair.tools.pocket.training.catalogue.samples import TAUGHT, choose_species, make_sample
from pleinair.tools.pocket.training.contrastive import Layout, World, fit, write_encoder_files
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.images import Sample

TEXTS, PATCH = 20_000, 12
FIRST_INDEX = 1_000_000_000


def _make(index: int) -> Sample:
    """Render training sample `index`; no species in it is novel."""
    rng = training_rng(FIRST_INDEX + index)
    return make_sample(draw_scene(rng, choose_species(rng, TAUGHT, strangers=0.3)))


def training_texts(count: int) -> Iterator[str]:
    """Yield texts of the kinds that the encoder is trained on."""
    for index in range(count):
        rng = training_rng(FIRST_INDEX + index)
        yield scene_text(rng, draw_scene(rng, choose_species(rng, TAUGHT, strangers=0.1))).words


def train(run: Run) -> None:
    """Train the encoder and write its folder; the detector and the adaptor must be trained after it."""
    folder = run.out / "encoder"
    layout = Layout(SIZE, PATCH, run.size((4, 3), (1, 1)), vocabulary=1400)
    write_encoder_files(folder, training_texts(run.size(TEXTS, 200)), layout)
    course = fit(run, World(_make, scene_text, phrase), folder)
    write_card(folder, "Pocket encoder", __doc__ or "", course, world="catalogue")
