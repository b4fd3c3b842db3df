"""Training of the pocket encoder: an open_clip model of some 1.7 M parameters for 96 × 96 images.

Two losses share one space. Contrastive: a caption, by name or by description, finds its image (Radford et al.
2021, with captions that fit several images of a batch masked out). Dense: a patch finds the phrase of the
subject it belongs to, so that patch features carry what the concept detector needs. Rare species are in the
data, novel ones are not; looks that are no species appear under their description alone.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pleinair.tools.pocket.catalogue.captions import phrase, scene_text
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import SIZE
from pleinair.tools.pocket.detector import encode_images
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.cases import training_rng
from pleinair.tools.pocket.training.course import Course, Run, muon_and_adam
from pleinair.tools.pocket.training.images import (
    TAUGHT,
    Rng,
    Sample,
    SamplePool,
    choose_species,
    degrade,
    make_sample,
    pixels,
)

FIRST_INDEX = 1_000_000_000
TEXTS, VOCABULARY = 20_000, 1400  # of the tokenizer's training, and its size
PATCH = 12  # pixels
BACKGROUND = "background"  # the phrase of a patch that shows no subject
BATCH, WARM_UP = 64, 60
POOL, FRESH = 2500, 6  # samples in memory, and how many of them are exchanged at each step
PREPROCESS: dict[str, Any] = {
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def normalise(images: Tensor) -> Tensor:
    """Apply the encoder's mean and standard deviation to images in 0..1."""
    return (images - float(PREPROCESS["mean"][0])) / float(PREPROCESS["std"][0])


def encode_texts(clip: Any, tokens: Tensor) -> Tensor:
    """Encode texts as open_clip does, without the padding behind the longest: unit vectors [n, 128]."""
    length = int(tokens.argmax(-1).max()) + 1
    x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
    ends = x[torch.arange(len(x)), tokens.argmax(-1)]
    rows: Tensor = F.normalize(ends @ clip.text_projection, dim=-1)
    return rows


def warm_up_and_decay(progress: float, step: int) -> float:
    """Return the factor of the learning rate: a rise over 60 steps, linear to 0 over the training."""
    return min(1, (step + 1) / WARM_UP) * (1 - progress)


def _make(index: int) -> Sample:
    """Render training sample `index`; no species in it is novel."""
    rng = training_rng(FIRST_INDEX + index)
    return make_sample(draw_scene(rng, choose_species(rng, TAUGHT, strangers=0.3)))


def training_texts(count: int) -> Iterator[str]:
    """Yield texts of the kinds that the encoder is trained on."""
    for index in range(count):
        rng = training_rng(FIRST_INDEX + index)
        yield scene_text(rng, draw_scene(rng, choose_species(rng, TAUGHT, strangers=0.1))).words


def _write_files(folder: Path, texts: Iterable[str], layers: tuple[int, int]) -> None:
    """Write a tokenizer trained on the texts, and open_clip's configuration, into the folder."""
    vision = {"image_size": SIZE, "patch_size": PATCH, "width": 128, "head_width": 32}
    text = {"context_length": 40, "width": 128, "heads": 4, "hf_tokenizer_name": "."}
    vision["layers"], text["layers"] = layers
    text["vocab_size"] = _write_tokenizer(folder, texts)
    model = {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text}
    content = json.dumps({"model_cfg": model, "preprocess_cfg": PREPROCESS}, indent=2)
    (folder / "open_clip_config.json").write_text(content + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path, texts: Iterable[str]) -> int:
    """Write a byte-level BPE tokenizer into the folder and return its size; its last id ends a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([BACKGROUND, *texts], trainer)
    raw.add_special_tokens(["<end>"])
    end: int = raw.get_vocab_size() - 1
    raw.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", end)])
    folder.mkdir(parents=True, exist_ok=True)
    raw.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return end + 1


def patch_owners(owner: NDArray[np.int8], side: int) -> NDArray[np.int64]:
    """Reduce owner maps [n, cells, cells] to patches [n, side²]; -1 unless over 3/4 of the cells agree."""
    n, cells = owner.shape[:2]
    share = cells // side
    patches = owner.reshape(n, side, share, side, share).transpose(0, 1, 3, 2, 4)
    patches = np.sort(patches.reshape(n, side**2, share**2).astype(np.int64))
    middle = patches[..., share**2 // 2]
    agreeing = (patches == middle[..., None]).mean(-1)
    return np.where(agreeing > 0.75, middle, -1)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of a batch: a caption for each image, a phrase for each subject, and which one a patch shows."""

    captions: list[str]
    phrases: list[str]  # the last one is BACKGROUND
    same_scene: Tensor  # [n, n] bool: caption i fits image j
    same_look: Tensor  # [phrases, phrases] bool: phrase j fits the subject that phrase i is about
    patches: Tensor  # [n, patches]: index into phrases, or -1


def _write_batch(rng: Rng, samples: Sequence[Sample], side: int) -> Texts:
    captions = [scene_text(rng, s.scene) for s in samples]
    species = [subject.species for s in samples for subject in s.scene.subjects]
    phrases = [phrase(rng, s) for s in species]
    starts = np.cumsum([0] + [len(s.scene.subjects) for s in samples[:-1]])
    owner = patch_owners(np.stack([s.owner for s in samples]), side)
    target = np.where(owner > 0, starts[:, None] + owner - 1, owner)
    target[owner == 0] = len(phrases)
    look = torch.eye(len(phrases) + 1, dtype=torch.bool)
    look[:-1, :-1] = torch.tensor([[p.looks[0].fits(s) for p in phrases] for s in species])
    return Texts(
        [text.words for text in captions],
        [*(text.words for text in phrases), BACKGROUND],
        torch.tensor([[text.fits(s.scene) for s in samples] for text in captions]),
        look,
        torch.from_numpy(target),
    )


def _contrastive_loss(scores: Tensor, same: Tensor) -> Tensor:
    """Return InfoNCE both ways over scores [n, n]; other pairs that fit as well are masked out."""
    others = same & ~torch.eye(len(same), dtype=torch.bool)
    scores = scores.masked_fill(others, -1e4)
    target = torch.arange(len(scores))
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def _dense_loss(scores: Tensor, texts: Texts) -> Tensor:
    """Return the patches' cross-entropy over the batch's phrases; scores are [n, patches, phrases]."""
    target = texts.patches.flatten()
    labelled = target >= 0
    scores, target = scores.flatten(0, 1)[labelled], target[labelled]
    twins = texts.same_look[target]
    twins[torch.arange(len(target)), target] = False
    weights = torch.ones(scores.shape[1])
    weights[-1] = 0.3
    return F.cross_entropy(scores.masked_fill(twins, -1e4), target, weight=weights)


def _loss(model: nn.Module, tokenize: Any, images: Tensor, texts: Texts) -> Tensor:
    """Return the sum of the contrastive and the dense loss of one batch."""
    scale = model.logit_scale.exp().clamp(max=60)  # type: ignore[operator]
    features, patches = encode_images(model, normalise(images))
    captions = encode_texts(model, tokenize(texts.captions))
    phrases = encode_texts(model, tokenize(texts.phrases))
    contrastive = _contrastive_loss(scale * captions @ features.T, texts.same_scene)
    return contrastive + _dense_loss(scale * patches @ phrases.T, texts)


def train(run: Run) -> None:
    """Train the encoder and write its folder; the detector and the adaptor must be trained after it."""
    import open_clip
    from safetensors.torch import save_file

    folder = run.out / "encoder"
    _write_files(folder, training_texts(run.size(TEXTS, 200)), run.size((4, 3), (1, 1)))
    torch.manual_seed(3)
    torch.set_num_threads(1)
    source = f"local-dir:{folder}"
    model, tokenize = open_clip.create_model(source, load_weights=False), open_clip.get_tokenizer(source)
    course = Course(run, "encoder", model, muon_and_adam(model, ("resblocks",)), warm_up_and_decay)
    pool, rng = SamplePool(_make, run.size(POOL, 12)), random.Random(course.step + 5)
    noise = torch.Generator().manual_seed(course.step + 5)
    side = model.visual.grid_size[0]
    for _ in course.steps():
        samples = pool.batch(rng, run.size(BATCH, 8), FRESH)
        images = degrade(pixels(samples), noise)
        course.descend(_loss(model, tokenize, images, _write_batch(rng, samples, side)))
    state = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    write_card(folder, "Pocket encoder", __doc__ or "", course)
