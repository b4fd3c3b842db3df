"""Estimate of a run before anything is spent: no engine is built and nothing is written.

Low is a draft that is accepted at once, high the whole budget. What a call or an image takes is what it took
in past runs of the same graph, profile and models: the least and the most of their averages. Before the first
run, tokens are estimated from what would be sent. Not covered: retries after a fault, building an index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pleinair.app.estimate.cost import Range, cost, product, tokens_of_calls
from pleinair.app.estimate.history import PastRun, Span, basis, past_runs, per_call, span
from pleinair.app.estimate.imagerag import imagerag_calls
from pleinair.app.estimate.tokens import CallTokens, tokens_of_call
from pleinair.app.paths import Paths
from pleinair.app.runs.notes import Note, option_lines
from pleinair.app.runs.request import DrawRequest
from pleinair.app.settings import Settings
from pleinair.app.texts import counted
from pleinair.tools.prompt_options import PromptOption
from pleinair.tools.types import BadInput, Budget, Value

if TYPE_CHECKING:
    from pleinair.tools.diffusion.settings import DiffusersSettings

RETRIED = 2  # calls that one structured answer may take: a repair where it does not fit, or is in doubt
NO_RUN = "no finished run of this graph, profile and models yet"


class Estimate(Value):
    """Estimate of one run; each range has the least and the most."""

    graph: str
    profile: str
    generator: str
    mllm: str
    past_runs: int
    runs: int = 1  # of the request, one an image; the ranges are of all, the limits of each
    limits: Budget
    pictures: Range
    calls: Range  # of the MLLM
    tokens: Range
    seconds: Range  # of work
    usd: Range
    memory: Range = Range()  # GiB on the generator's device
    prompt_options: tuple[PromptOption, ...] = ()  # what the prompt was typed with beside its text
    notes: tuple[Note, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield the lines for a terminal."""
        yield from option_lines(self.prompt_options, self.notes)
        yield f"{self.graph}, profile {self.profile}: {self.generator}, {self.mllm}. Nothing is generated."
        if self.runs > 1:
            yield f"{self.runs} runs, one an image, each with the whole budget"
        for label, part in (
            ("images", self.pictures),
            ("MLLM calls", self.calls),
            ("tokens", self.tokens),
            ("seconds", self.seconds),
            ("US dollars", self.usd),
            ("memory GiB", self.memory),
        ):
            yield part.line(label)
        limits = self.limits.model_dump(exclude_none=True)
        yield f"limits      {', '.join(f'{key} {value}' for key, value in limits.items())}"
        yield "The first number is for a draft that is accepted at once, the second for the whole budget."


def estimate_of(request: DrawRequest, paths: Paths) -> Estimate:
    """Estimate what a request takes."""
    settings, runs = request.settings, past_runs(request, paths)
    budget = settings.budget
    images = _images(request.graph, settings).limited(budget.images, "images")
    calls = _calls(request.graph, settings, images, runs).limited(budget.mllm_calls, "mllm_calls")
    ranges = _ranges(request, images, calls, runs)
    count = request.num_images
    return Estimate(
        graph=request.graph,
        profile=settings.profile,
        generator=settings.generator.label,
        mllm=settings.mllm.label,
        past_runs=len(runs),
        runs=count,
        limits=budget,
        memory=_memory(settings),
        prompt_options=request.prompt_options,
        notes=request.notes,
        **{name: product(part, count, count, part.note, 6) for name, part in ranges.items()},
    )


def estimate_work(request: DrawRequest, paths: Paths, images: Range, calls: Range) -> dict[str, Range]:
    """Estimate what so many more images and MLLM calls of a run's kind take, by the fields of `Estimate`."""
    return _ranges(request, images, calls, past_runs(request, paths))


def _ranges(request: DrawRequest, images: Range, calls: Range, runs: Sequence[PastRun]) -> dict[str, Range]:
    settings, budget = request.settings, request.settings.budget
    reranks = request.graph == "imagerag" and settings.imagerag.rerank is True
    call_tokens = (
        None if runs else tokens_of_call(request.graph, request.prompt, settings.mllm, reranks=reranks)
    )
    tokens = _tokens(calls, runs, call_tokens).limited(budget.tokens, "tokens")
    return {
        "pictures": images,
        "calls": calls,
        "tokens": tokens,
        "seconds": _seconds(images, calls, runs).limited(budget.seconds, "seconds"),
        "usd": cost(settings, images, calls, tokens, runs, call_tokens).limited(budget.usd, "usd"),
    }


def _images(graph: str, settings: Settings) -> Range:
    """Count the images of a graph of ours; any other may take the whole budget."""
    most, rounds = settings.budget.attempts, settings.imagerag.rounds
    if graph == "direct" or graph == "crossmodal":
        return Range(low=1, high=1)
    if graph == "realrag":
        count = min(1 + (settings.realrag.method == "self_contrast"), most)
        return Range(low=count, high=count)
    if graph == "imagerag":
        return Range(low=1, high=min(rounds + (settings.imagerag.mode == "draft_first"), most))
    if graph == "pleinair":
        draft_steps = int(settings.generator.arguments.get("draft_steps") or 0)
        has_drafts = 0 < draft_steps < (settings.image.num_inference_steps or 1001)
        return Range(low=min(1 + has_drafts, most), high=most)
    return Range(low=1, high=most)


def _calls(graph: str, settings: Settings, images: Range, runs: Sequence[PastRun]) -> Range:
    """Count the MLLM calls; where the graph sets no bound, by what past runs took."""
    assert images.low is not None and images.high is not None
    if graph == "direct" or graph == "realrag" or (graph == "crossmodal" and not settings.crossmodal.rag):
        return Range(low=0, high=0, note="this graph makes none")
    if graph == "pleinair":  # the concepts once, and a critique of each image
        return Range(low=1 + images.low, high=RETRIED * (1 + images.high))
    if graph == "crossmodal":
        return Range(low=1, high=RETRIED + settings.crossmodal.captions)
    if graph == "imagerag":
        return imagerag_calls(settings, images)
    past = span([run.calls for run in runs])
    if past is None:
        return Range(note=f"this graph sets no bound, and there is {NO_RUN}")
    note = f"what {counted(len(runs), 'past run')} took; this graph sets no bound"
    return Range(low=past[0], high=past[1], note=note)


def _tokens(calls: Range, runs: Sequence[PastRun], call_tokens: CallTokens | None) -> Range:
    if calls.high == 0:
        return Range(low=0, high=0)
    if call_tokens:
        return tokens_of_calls(calls, call_tokens)
    each: Span | None = per_call(runs, "tokens")
    if each is None or calls.low is None or calls.high is None:
        return Range(note=_unknown(runs, calls))
    if not each[1]:
        return Range(note="the MLLM of past runs reported none")
    return product(calls, *each, basis(runs))


def _seconds(images: Range, calls: Range, runs: Sequence[PastRun]) -> Range:
    """Estimate the seconds of work: of the images, and of everything else in proportion to the calls."""
    each = span([seconds for run in runs for seconds in run.image_seconds])
    other = span([run.other_seconds / max(run.calls, 1) for run in runs])
    if each is None or other is None or calls.low is None or calls.high is None:
        return Range(note=_unknown(runs, calls))
    assert images.low is not None and images.high is not None
    low = images.low * each[0] + max(calls.low, 1) * other[0]
    high = images.high * each[1] + max(calls.high, 1) * other[1]
    return Range(low=round(low, 2), high=round(high, 2), note=basis(runs))


def _unknown(runs: Sequence[PastRun], calls: Range) -> str:
    return "the number of MLLM calls is unknown" if runs and calls.high is None else NO_RUN


def _memory(settings: Settings) -> Range:
    """Estimate the generator's GiB without references and with all slots full, from headers and configs.

    If the steps of a class were not measured, the weights are the lower bound and the upper one is unknown.
    """
    from pleinair.app.models.inventory import BACKENDS, generator_settings

    size = settings.image.model_dump(include={"width", "height"}, exclude_none=True)
    choice = settings.generator.model_copy(update=size)
    if choice.backend not in BACKENDS:
        return Range(note=f"not predicted for the backend {choice.backend!r}")
    try:
        return _diffusers_memory(generator_settings(choice))
    except BadInput as error:
        return Range(note=error.message)


def _diffusers_memory(settings: DiffusersSettings) -> Range:
    from pleinair.tools.diffusion.in_context import InContextSettings
    from pleinair.tools.diffusion.memory import GIB, format_gib, read_estimate
    from pleinair.tools.diffusion.references import sequence_length

    family, level, folder = settings.family, settings.memory, settings.source().local_folder()
    dtype = family.dtype or settings.dtype or ("float32" if settings.device == "cpu" else "bfloat16")
    itemsize = 4 if dtype == "float32" else 2
    estimate = read_estimate(folder, family, itemsize, settings.variant) if folder else None
    if estimate is None:
        return Range(note="the model is not downloaded")
    weights = estimate.weights(level)
    if not (isinstance(settings, InContextSettings) and estimate.token_bytes):
        note = f"the weights alone, in {dtype} at offload level {level}"
        note += f": the steps of {settings.pipeline} were not measured"
        return Range(low=weights / GIB, note=note)
    rule, longest = settings.token_rule(estimate.unit), settings.reference_size
    references = [(longest, longest)] * (family.slots if settings.slots is None else settings.slots)
    counts = [
        sequence_length(rule, (settings.width, settings.height), sizes, longest) for sizes in ([], references)
    ]
    low, high = (estimate.total(level, count) for count in counts)
    note = (
        f"an estimate: {format_gib(weights)} of weights in {dtype}, offload level {level}, without decoding"
    )
    if settings.memory_limit and high > settings.memory_limit * GIB:
        note += "; over generator.memory_limit: a lower level, smaller references or a refusal"
    return Range(low=low / GIB, high=high / GIB, note=note)
