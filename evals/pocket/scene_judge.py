"""Judge by the oracle whether an image shows what a request asks for, item by item.

Judged: that each species, or a subject of each kind, is in the image; the number of each; the colour of kinds
by day in clear weather, by the pixels in the subject's box; and left, right, above and under, by the centres
of the boxes. Not covered: the other relations, sizes, places, light, weather; subjects of one species that
touch are counted as one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

from pleinair.evals.pocket.oracle import STRANGER, Finding, Oracle
from pleinair.tools.pocket.catalogue.drawings.palette import NAMED
from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request
from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME, plain

_NEAR = 60.0  # distance of RGB values, 0..255, up to which a pixel has a colour
_COLOURED = 0.12  # share of a box's pixels that makes its subject have the colour
_AXES = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "under": (1, -1)}  # axis and sign
_TRUE_RENDERS = range(3)  # seeds

Verdicts = dict[str, bool]  # by item, such as "count of hoopoe"


def judge(image: Image, request: Request, findings: Sequence[Finding]) -> Verdicts:
    """Return for each item of a request whether the image is right, by what the oracle finds in it."""
    by_mention = [_findings_of(mention, request, findings) for mention in request.mentions]
    verdicts: Verdicts = {}
    for mention, of_mention in zip(request.mentions, by_mention, strict=True):
        name = f"{mention.colour} {mention.name}".strip()
        verdicts[f"subject {name}"] = bool(of_mention)
        verdicts[f"count of {name}"] = len(of_mention) == mention.count
        if mention.colour and request.light in ("", "day") and request.weather in ("", "clear"):
            verdicts[f"colour of {name}"] = any(_has_colour(image, f, mention.colour) for f in of_mention)
    relation = next(iter(request.relations), "")
    if relation in _AXES:
        verdicts[f"relation {relation}"] = _stands(relation, by_mention[0], by_mention[1])
    return verdicts


def _findings_of(mention: Mention, request: Request, findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that may be a subject: of a kind, its species and strangers that are not named."""
    if mention.name in BY_NAME:
        return [finding for finding in findings if finding.name == mention.name]
    named = {other.name for other in request.mentions}
    free = [finding for finding in findings if finding.name not in named]
    return [f for f in free if f.name == STRANGER or BY_NAME[f.name].kind == mention.name]


def _has_colour(image: Image, finding: Finding, colour: str) -> bool:
    box = [round(edge * image.width) for edge in finding.box]
    pixels = np.asarray(image.convert("RGB").crop((box[0], box[1], box[2], box[3])), dtype=np.float64)
    distances = np.linalg.norm(pixels - np.array(NAMED[colour]), axis=-1)
    return bool((distances < _NEAR).mean() >= _COLOURED)


def _stands(relation: str, first: Sequence[Finding], second: Sequence[Finding]) -> bool:
    """Return whether the middle of the first findings is on the right side of that of the second."""
    if not first or not second:
        return False
    axis, sign = _AXES[relation]
    return sign * (_middle(second, axis) - _middle(first, axis)) > 0


def _middle(findings: Sequence[Finding], axis: int) -> float:
    return float(np.mean([(f.box[axis] + f.box[axis + 2]) / 2 for f in findings]))


def true_render(request: Request, seed: int) -> Image:
    """Return an image that shows what a request asks for; kinds have their plain look."""
    subjects = [
        Subject(BY_NAME.get(m.name) or plain(m.name, m.colour), m.count, m.size) for m in request.mentions
    ]
    light, weather = request.light or "day", request.weather or "clear"
    place = {"background": request.background, "light": light, "weather": weather}
    return render(place_scene(random.Random(seed), subjects, request.relations, **place))


def judgeable(request: Request, oracle: Oracle) -> set[str]:
    """Return the items of a request that the oracle finds right in each of three true renders."""
    images = [true_render(request, seed) for seed in _TRUE_RENDERS]
    judged = [judge(image, request, oracle.subjects(image)) for image in images]
    return {item for item in judged[0] if all(verdicts[item] for verdicts in judged)}
