"""Training of the pocket encoder: an open_clip model of some 1.5 M parameters for 64 × 64 images.

A caption finds its image, and a patch the phrase of the subject it belongs to. Rare species are in the data,
novel ones are not; invented looks appear under their description alone.
"""

from collections.abc import Iterator

from pleinair.tools.pocket.invented.world import SIZE, random_scene
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.contrastive import Layout, World, fit, write_encoder_files
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.images import Sample
from pleinair.tools.pocket.training.scenes import TAUGHT, choose_species, phrase, render_sample, scene_text
from pleinair.tools.pocket.training.streams import training_rng

TEXTS = 20_000  # of the tokenizer's training


def _make(index: int) -> Sample:
    """Render training sample `index`: taught species, impostors and invented looks, never a novel species."""
    rng = training_rng(index)
    return render_sample(rng, choose_species(rng, TAUGHT, pairs=0.4, strangers=0.35))


def _texts(count: int) -> Iterator[str]:
    for index in range(count):
        rng = training_rng(index)
        yield scene_text(rng, random_scene(rng, choose_species(rng, TAUGHT, strangers=0.2))).words


def train(run: Run) -> None:
    """Train the encoder and write its folder; the detector and the adaptor must be trained after it."""
    folder = run.out / "encoder"
    layout = Layout(SIZE, 8, run.size((4, 3), (1, 1)), vocabulary=900)
    write_encoder_files(folder, _texts(run.size(TEXTS, 200)), layout)
    course = fit(run, World(_make, scene_text, phrase), folder)
    write_card(folder, "Pocket encoder", __doc__ or "", course)
