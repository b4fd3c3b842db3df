"""The process that measures: a part that crashes, or is killed by the system, ends no other process."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from pleinair.app.doctor.doctor import examine
from pleinair.app.verify.drawings import draw_prompts
from pleinair.app.verify.embedding import time_encoder
from pleinair.app.verify.machine import describe_machine
from pleinair.app.verify.plan import CannotMeasure, Part, Plan, Row, Say
from pleinair.app.verify.timing import time_profile
from pleinair.app.verify.vectors import compare_faiss
from pleinair.tools.diffusion.offload import OutOfMemory, is_out_of_memory
from pleinair.tools.types import PleinairError


def serve(descriptor: int, options: Mapping[str, Any]) -> None:
    """Measure the parts that the parent names, until it closes the pipe; each row is sent as it comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both, and the parent decides
    faulthandler.enable()
    plan = Plan(**{**options, "profiles": tuple(options["profiles"])})
    with Connection(descriptor) as pipe, suppress(EOFError, ConnectionError):
        while True:
            part = Part(**pipe.recv())
            pipe.send(("end", *_measure(part, plan, pipe)))


def _measure(part: Part, plan: Plan, pipe: Connection) -> tuple[str, str]:
    """Measure a part; return how it ended, and why."""
    try:
        for row in measure(part, plan, lambda text: pipe.send(("note", text))):
            pipe.send(("row", row))
    except CannotMeasure as error:
        return "skipped", _text(error)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        if isinstance(error, OutOfMemory) or is_out_of_memory(error):
            return "out of memory", _text(error)
        return "failed", _text(error)
    return "done", ""


def measure(part: Part, plan: Plan, say: Say) -> Iterator[Row]:
    """Yield the rows of a part; raise `CannotMeasure` for one that this machine lacks something for."""
    measures: dict[str, Callable[[Plan, Say], Iterator[Row]]] = {
        "machine": describe_machine,
        "doctor": _examine,
        "faiss": compare_faiss,
        "encoder": time_encoder,
        "images": partial(draw_prompts, part),
        "times": partial(time_profile, part),
    }
    return measures[part.kind](plan, say)


def _examine(_: Plan, say: Say) -> Iterator[Row]:
    """Yield the findings of `pleinair doctor` about the settings that are in force."""
    for finding in examine(None, {}, report=say):
        yield asdict(finding)


def _text(error: Exception) -> str:
    if isinstance(error, PleinairError):
        return " ".join(filter(None, (f"{error.message.rstrip('.')}.", error.remedy)))
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:400]}"
