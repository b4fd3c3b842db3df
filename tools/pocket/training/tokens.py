"""Build the generator's tokenizer: a small byte-level BPE in the class that the pipeline loads."""

import random
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pleinair.tools.pocket.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.prompts import RELATIONS, Request, write_prompt
from pleinair.tools.pocket.world import SPECIES, Species, random_species, training_rng

VOCABULARY = 900
MAX_LENGTH = 20
PAD = "<|pad|>"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def write_training_prompts(count: int, first_index: int = 0) -> Iterator[str]:
    """Yield prompts over known and freshly invented names, never a rare or novel one."""
    known = [species for species in SPECIES if species.tier == "known"]
    for index in range(first_index, first_index + count):
        rng = training_rng(index)
        names = [_name(rng, known) for _ in range(rng.choice((1, 2)))]
        relation = rng.choice(RELATIONS) if len(names) == 2 else None
        yield write_prompt(rng, Request(tuple(names), relation, rng.choice((*BACKGROUNDS, None))))


def _name(rng: random.Random, known: Sequence[Species]) -> str:
    return rng.choice(known).name if rng.random() < 0.7 else random_species(rng).name


def build_tokenizer(count: int = 30_000) -> PreTrainedTokenizerFast:
    """Train the BPE on `count` prompts: a known name is about a token, an unknown one falls in pieces."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(write_training_prompts(count), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=PAD, eos_token=PAD, padding_side="right"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
