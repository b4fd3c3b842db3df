"""Fork of a run: the same history up to a step, with other values from there on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import Unpack

from pleinair.app.api import find, finish, home, run_table
from pleinair.app.models.pins import require_pins
from pleinair.app.models.ready import require_ready
from pleinair.app.parts import OwnParts, require_parts, split_parts, with_parts
from pleinair.app.runs.events import OnEvent
from pleinair.app.runs.request import Parent, new_request, read_request
from pleinair.app.settings import Settings, altered, load
from pleinair.app.trace.references import Choice, changed_references
from pleinair.app.trace.steps import GENERATE, Step, find_step, steps_of
from pleinair.tools.types import BadInput, Reference

if TYPE_CHECKING:
    from pleinair.app.runs.results import Result
    from pleinair.app.runs.row import Run

MODELS = ("profile", "generator", "encoder", "mllm")  # settings that a fork takes from another profile


class ForkOptions(OwnParts, total=False):
    """What a fork changes; None leaves the parent's, whose own parts are handed over again."""

    prompt: str | None  # at a step of `generate`, of this one image only; so is the seed
    seed: int | None
    overrides: Mapping[str, Any] | None  # dotted settings over the parent's, such as {"budget.attempts": 5}
    profile: str | None  # whose models are used from this step on; not at a step of `generate`
    references: Mapping[str, Choice] | None  # of an image, at its step, by concept
    out: str | None  # folder for the results


def fork(run: str, at: str, *, on_event: OnEvent | None = None, **options: Unpack[ForkOptions]) -> Result:
    """Run a step of a run again, with what follows it, as a new run; steps before are not paid for again.

    What was spent before the step counts towards the new run's budget, so a run that was stopped by its limit
    goes on when it is forked at its last critique with a larger one. Steps that ran beside this one run again
    too. A remote model may answer differently the second time. A driving model is sent a new prompt only at
    `begin:1`.

    Args:
        run: a run's id, the beginning of one, or "last".
        at: a step by its name, such as "critique:1"; `pleinair trace show` prints them.
        on_event: called with every event, from the threads that work on the run.
        options: see `ForkOptions`.

    Raises:
        BadInput: a value is not accepted; nothing was written.
    """
    return finish(submit_fork(run, at, **options), on_event, **split_parts(options))


def submit_fork(
    run: str,
    at: str,
    *,
    client: str | None = None,
    most: int | None = None,
    idempotency_key: str | None = None,
    **options: Unpack[ForkOptions],
) -> Run:
    """Check a fork and write its row, for `finish` to run, or for a worker if it has a `client`.

    Arguments as for `fork`; `most` is the number of runs that may wait, and a fork with the key of another
    one returns that. Raises `BadInput` and `QueueFull`.
    """
    parent = find(run)
    before = read_request(parent.request_json)
    name, step = find_step(steps_of(parent, home()), at)
    values = {"prompt": options.get("prompt"), "seed": options.get("seed")}
    changes: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    is_generate = name.startswith(f"{GENERATE}:")  # whose changes are of its one image
    settings = _settings(before.settings, options, is_generate)
    choices = options.get("references") or {}
    require_parts(settings, split_parts(options), "the fork")
    references = _references(parent, step, choices, settings)
    dumped = [reference.model_dump(mode="json") for reference in references]
    exchanged = {"references": dumped} if choices else {}
    branch = Parent(
        run=parent.id,
        step=name,
        checkpoint=step.checkpoint,
        request=changes | exchanged if is_generate else {},
        given=references if step.driven else (),
    )
    shared = before.model_dump(include={"graph", "strip_metadata", "pictures", "base", "thread"})
    request = new_request(
        **shared,
        **({"prompt": before.prompt, "seed": parent.seed} | changes),
        settings=settings,
        out=options.get("out") or before.out,
        parent=branch,
    )
    if is_generate:
        request = request.model_copy(update={"prompt": before.prompt, "seed": parent.seed})
    return run_table().add_group(request.rows(), idempotency_key, client=client, most=most)[0]


def _settings(before: Settings, options: ForkOptions, is_generate: bool) -> Settings:
    """Return the parent's settings with the models of another profile, and with single keys changed."""
    if profile := options.get("profile"):
        if is_generate:
            raise BadInput(
                f"profile {profile!r}: the image of a step of `{GENERATE}` is prepared for other models",
                "Fork at an earlier step.",
            )
        other = load(profile)
        require_pins(other)
        require_ready(other)
        before = before.model_copy(update={name: getattr(other, name) for name in MODELS})
    overrides = options.get("overrides") or {}
    return with_parts(altered(before, overrides), split_parts(options), overrides)


def _references(
    parent: Run, step: Step, choices: Mapping[str, Choice], settings: Settings
) -> tuple[Reference, ...]:
    """Return the references of a step's image, some of them changed; a driving model's only these."""
    if not choices:
        return ()
    if step.image is None:
        raise BadInput(
            f"references: they are changed at a step of `{GENERATE}`, not at {' '.join(step.names)}",
            "In a run of a driving model, at an act that generated an image.",
        )
    if step.driven and "" in choices.values():
        raise BadInput("references: a driving model cannot be told to use none", "Choose another image.")
    references = changed_references(parent, step, choices, settings, home())
    return references if step.request else tuple(each for each in references if each.concept in choices)
