"""Train the pocket encoder: an open_clip model of some 1.5 M parameters for 64 × 64 pictures.

Two losses share one space. Contrastive: a caption, by name or by description, finds its picture (Radford et
al. 2021, with captions that fit several pictures of a batch masked out). Dense: a patch finds the phrase
of the subject it belongs to, so that patch features carry what the detector needs. Rare species take part,
novel ones do not; invented looks appear under their description alone.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.detector import encode_images
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.course import Course, Say
from pleinair.tools.pocket.training.embed import PREPROCESS, encode_short, normalise, pixels
from pleinair.tools.pocket.training.pictures import Pool, Sample, choose, draw
from pleinair.tools.pocket.training.recall import measure, section
from pleinair.tools.pocket.training.texts import TAUGHT, phrase, scene_text
from pleinair.tools.pocket.training.wear import wear
from pleinair.tools.pocket.world import random_scene, training_rng

FOLDER = SHIPPED / "encoder"
NOTHING = "background"  # the phrase of a patch that shows no subject
CONTEXT = 40  # tokens
VOCABULARY = 900
BATCH = 64
RATE = 1.5e-3
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": CONTEXT, "width": 128, "heads": 4, "layers": 3, "hf_tokenizer_name": "."},
}


def _make(index: int) -> Sample:
    """Render training sample `index`: taught species, impostors and invented looks, never a novel species."""
    rng = training_rng(index)
    return draw(rng, choose(rng, TAUGHT, pairs=0.4, strangers=0.35))


def _write_texts(count: int) -> Iterator[str]:
    """Yield the texts that the tokenizer is built from."""
    yield NOTHING
    for index in range(count):
        rng = training_rng(index)
        yield scene_text(rng, random_scene(rng, choose(rng, TAUGHT, strangers=0.2))).words


def _write_tokenizer(folder: Path, count: int = 20_000) -> int:
    """Write a byte-level BPE tokenizer into the folder and return its size; its last id ends a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(_write_texts(count), trainer)
    raw.add_special_tokens(["<end>"])
    end: int = raw.get_vocab_size() - 1
    raw.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", end)])
    folder.mkdir(parents=True, exist_ok=True)
    raw.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return end + 1


def _write_config(folder: Path, vocabulary: int) -> None:
    """Write open_clip's configuration file."""
    model = MODEL | {"text_cfg": MODEL["text_cfg"] | {"vocab_size": vocabulary}}
    text = json.dumps({"model_cfg": model, "preprocess_cfg": PREPROCESS}, indent=2)
    (folder / "open_clip_config.json").write_text(text + "\n", encoding="utf-8")


def _patch_owner(owner: NDArray[np.int8]) -> NDArray[np.int64]:
    """Reduce owner maps [n, 16, 16] to patches [n, 64]; -1 unless the four cells agree."""
    cells = owner.reshape(-1, 8, 2, 8, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 64, 4).astype(np.int64)
    clear = (cells == cells[..., :1]).all(-1)
    return np.where(clear, cells[..., 0], -1)


@dataclass(frozen=True, slots=True)
class Texts:
    """Hold a batch's texts: a caption a picture, a phrase a subject, and which subject a patch shows."""

    captions: list[str]
    phrases: list[str]  # the last one is NOTHING
    same_scene: Tensor  # [n, n] bool: caption i fits picture j
    same_look: Tensor  # [phrases, phrases] bool: phrase j fits the subject that phrase i is about
    patches: Tensor  # [n, 64]: index into phrases, or -1


def _write_batch(rng: random.Random, samples: Sequence[Sample]) -> Texts:
    """Word a batch of samples."""
    captions = [scene_text(rng, s.scene) for s in samples]
    species = [subject.species for s in samples for subject in s.scene.subjects]
    phrases = [phrase(rng, s) for s in species]
    starts = np.cumsum([0] + [len(s.scene.subjects) for s in samples[:-1]])
    owner = _patch_owner(np.stack([s.owner for s in samples]))
    target = np.where(owner > 0, starts[:, None] + owner - 1, owner)
    target[owner == 0] = len(phrases)
    look = torch.eye(len(phrases) + 1, dtype=torch.bool)
    look[:-1, :-1] = torch.tensor([[p.wishes[0].fits(s) for p in phrases] for s in species])
    return Texts(
        [text.words for text in captions],
        [*(text.words for text in phrases), NOTHING],
        torch.tensor([[text.fits(s.scene) for s in samples] for text in captions]),
        look,
        torch.from_numpy(target),
    )


def _contrast(scores: Tensor, same: Tensor) -> Tensor:
    """Return InfoNCE both ways over scores [n, n]; pairs that fit as well are neither right nor wrong."""
    others = same & ~torch.eye(len(same), dtype=torch.bool)
    scores = scores.masked_fill(others, -1e4)
    right = torch.arange(len(scores))
    return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2


def _dense(scores: Tensor, texts: Texts) -> Tensor:
    """Return the patches' cross-entropy over the batch's phrases; scores are [n, 64, phrases]."""
    target = texts.patches.flatten()
    kept = target >= 0
    scores, target = scores.flatten(0, 1)[kept], target[kept]
    twins = texts.same_look[target]
    twins[torch.arange(len(target)), target] = False
    weights = torch.ones(scores.shape[1])
    weights[-1] = 0.3
    return F.cross_entropy(scores.masked_fill(twins, -1e4), target, weight=weights)


def _loss_of(model: nn.Module, tokenize: Any, pictures: Tensor, texts: Texts) -> tuple[Tensor, Tensor]:
    """Return the contrastive and the dense loss of one batch."""
    scale = model.logit_scale.exp().clamp(max=60)  # type: ignore[operator]
    whole, patches = encode_images(model, normalise(pictures))
    captions = encode_short(model, tokenize(texts.captions))
    phrases = encode_short(model, tokenize(texts.phrases))
    return _contrast(scale * captions @ whole.T, texts.same_scene), _dense(scale * patches @ phrases.T, texts)


def _fit(course: Course, tokenize: Any, say: Say, size: int = 2500) -> None:
    """Train until the course's time is over."""
    pool, rng = Pool(_make, size), random.Random(course.step + 5)
    noise = torch.Generator().manual_seed(course.step + 5)
    for step in course.steps():
        samples = pool.batch(rng, BATCH, fresh=6)
        pictures = wear(pixels(samples), noise)
        whole, parts = _loss_of(course.model, tokenize, pictures, _write_batch(rng, samples))
        course.descend(whole + parts)
        if step % 50 == 0:
            say(f"step {step} seconds {course.seconds:.0f} contrast {whole:.3f} dense {parts:.3f}")


def _save(model: nn.Module, folder: Path) -> None:
    """Write the weights as half floats under open_clip's name."""
    from safetensors.torch import save_file

    state = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")


def train(minutes: float, resume: bool, say: Say) -> None:
    """Train the encoder for `minutes` in all and write its folder; train the detector again after it."""
    import open_clip

    torch.manual_seed(3)
    torch.set_num_threads(1)
    _write_config(FOLDER, _write_tokenizer(FOLDER))
    source = f"local-dir:{FOLDER}"
    model, tokenize = open_clip.create_model(source, load_weights=False), open_clip.get_tokenizer(source)
    course = Course("encoder", model, minutes, RATE)
    if resume:
        course.resume()
    _fit(course, tokenize, say)
    _save(model, FOLDER)
    _report(course, say)


def _report(course: Course, say: Say) -> None:
    """Measure the written model and write its card."""
    figures = measure(FOLDER)
    for name, (figure, bar) in figures.items():
        say(f"{name}: {figure} (bar {bar})")
    write_card(FOLDER, "Pocket encoder", __doc__ or "", course, section(figures))
