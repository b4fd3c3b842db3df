"""Training of Cross-modal RAG's adaptor from settings, for `pleinair train adaptor`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.agent.state import MLLM_CALL, spending_limit
from pleinair.app.engines import Watch, build_backend, build_encoder, check
from pleinair.app.estimate.cost import Range, cost_of_calls, tokens_of_calls
from pleinair.app.estimate.estimate import RETRIED
from pleinair.app.estimate.tokens import tokens_of_subqueries
from pleinair.app.libraries import OnProgress, fresh_index, open_library
from pleinair.app.paths import Paths, places
from pleinair.app.runs.prices import require_prices
from pleinair.app.runs.request import check_out
from pleinair.app.settings import Settings
from pleinair.tools.data_sets.training import published, training_part
from pleinair.tools.deadline import OutOfTime, deadline, seconds_left
from pleinair.tools.types import PleinairError

if TYPE_CHECKING:
    from pleinair.tools.retrieval.crossmodal.adaptor import Tower
    from pleinair.tools.retrieval.crossmodal.adaptor_training import AdaptorOptions
    from pleinair.tools.retrieval.crossmodal.examples import AnswerBook, Example
    from pleinair.tools.retrieval.library import Library


class OverBudget(PleinairError):
    """The budget was used up before every caption had an answer."""


def train_adaptor(
    settings: Settings,
    out: Path,
    options: AdaptorOptions,
    watch: Watch,
    *,
    at_once: int = 8,
    restart: bool = False,
    dry_run: bool = False,
) -> Iterator[str]:
    """Train Cross-modal RAG's dense adaptor on the library's captions; yield a line a stage and epoch.

    The MLLM splits each caption, a line of the image's, into sub-queries once, within the budget; its answers
    are stored in `out`. Of a published data set only the images to train on are used, with its own captions.
    The same call goes on after a stop: with the captions, then from the last epoch.

    Args:
        settings: library, encoder, MLLM, budget, and the style of sub-queries.
        out: folder for the answers, the checkpoint and the adaptor.
        options: of the training.
        watch: shows progress.
        at_once: MLLM calls beside each other, at least 1.
        restart: replace an adaptor or a checkpoint in `out`; the answers stay.
        dry_run: yield the estimate only.

    Raises:
        BadInput: an encoder without patch features, fewer than two usable images, an unknown device, or a
            folder that is not writable or has an adaptor of another training.
        OverBudget: the budget was used up before every caption had an answer.
    """
    from pleinair.tools.retrieval.crossmodal.adaptor import find_device, require_free, require_tower
    from pleinair.tools.retrieval.crossmodal.examples import AnswerBook

    check(settings)
    check_out(out)
    find_device(options.device)
    home = places(settings.paths.home)
    library, captions = _training_images(settings, home)
    book = AnswerBook(out, settings.crossmodal.decomposition)
    missing = book.missing(captions)
    yield from _estimate(settings, captions, missing, options)
    if dry_run:
        return
    tower = require_tower(encoder := build_encoder(settings))
    if missing:
        require_free(out, restart)  # other captions than before are another training
        with watch("Listing sub-queries") as on_caption:
            _ask_all(settings, book, missing, at_once, on_caption)
    with watch("Indexing images") as on_index:  # which of them can be read
        index = fresh_index(settings, home, library, encoder, on_index)
    examples = book.examples({id: captions[id] for id in index.ids if id in captions})
    yield f"{len(examples)} of {len(library.items)} images have sub-queries; {book.empty} captions gave none"
    yield from _run_epochs(examples, out, tower, library, options, watch, restart=restart)


def _run_epochs(
    examples: Sequence[Example],
    out: Path,
    tower: Tower,
    library: Library,
    options: AdaptorOptions,
    watch: Watch,
    *,
    restart: bool,
) -> Iterator[str]:
    from pleinair.tools.retrieval.crossmodal.adaptor_training import train

    with watch("Training") as on_batch:
        losses = list(
            train(
                examples,
                out,
                tower=tower,
                open=library.picture,
                options=options,
                restart=restart,
                on_progress=on_batch,
            )
        )
    yield from (f"epoch {epoch} of {options.epochs}: loss {loss:.4f}" for epoch, loss in losses)
    yield f"--set crossmodal.adaptor={out} uses it"


def _training_images(settings: Settings, home: Paths) -> tuple[Library, dict[str, str]]:
    """Return the library's images to train on, and the captions of those that have some, a line each.

    A data set's own captions come first, then the names of its classes.
    """
    library = open_library(settings, home)
    data_set = published(library)
    library = training_part(library, data_set)
    if data_set:
        examples = [example for example in data_set.examples if example.path in library.items]
        texts = {example.path: "\n".join(example.captions) or example.class_name for example in examples}
    else:
        texts = {item.id: item.caption for item in library.items.values()}
    return library, {id: text for id, text in texts.items() if text}


def _estimate(
    settings: Settings, captions: Mapping[str, str], missing: Sequence[str], options: AdaptorOptions
) -> Iterator[str]:
    """Yield what the training takes: MLLM calls with tokens and money, and batches."""
    calls = Range(low=len(missing), high=RETRIED * len(missing)).limited(
        settings.budget.mllm_calls, "mllm_calls"
    )
    each = tokens_of_subqueries(max(missing, key=len, default=""), settings.mllm)
    unknown = Range(note=f"not known for the backend {settings.mllm.backend!r}")
    tokens = tokens_of_calls(calls, each) if each else unknown
    yield calls.line("MLLM calls")
    if missing:
        yield tokens.limited(settings.budget.tokens, "tokens").line("tokens")
        price = cost_of_calls(settings.mllm, calls, tokens, (), each)
        yield price.limited(settings.budget.usd, "usd").line("US dollars")
    batches = Range(high=options.epochs * math.ceil(len(captions) / options.batch), note="of all epochs")
    yield batches.model_copy(update={"low": batches.high}).line("batches")


def _ask_all(
    settings: Settings, book: AnswerBook, captions: Sequence[str], at_once: int, on_progress: OnProgress
) -> None:
    """List the sub-queries of captions; raise `OverBudget` if the budget is used up before all have some."""
    require_prices(settings, ("mllm",))
    model = build_backend("mllm", settings.mllm)
    budget = settings.budget
    with deadline(math.inf if budget.seconds is None else budget.seconds), suppress(OutOfTime):
        book.ask_all(
            captions,
            model,
            at_once=at_once,
            may_call=lambda spent: spending_limit(budget, spent, MLLM_CALL) is None and seconds_left() > 0,
            on_progress=on_progress,
        )
    if left := sum(caption not in book.answers for caption in captions):
        raise OverBudget(f"{left} captions have no sub-queries yet.", "The same command goes on with them.")
