"""Measure retrieval on a library with captions: `python -m pleinair.evals recall LIBRARY --encoder …`.

R@K is the share of captions whose own image is among the K nearest of all images; an image that is as near as
the own one counts as nearer. COCO's protocol asks with every caption of an image, Cross-modal RAG's program
with the longest one only. Coverage is the share of a caption's sub-queries that the captions of the K nearest
images contain, without the own image, which contains them all; the last figure is that of the library, which
a Pareto set reaches. Not covered: text retrieved by images.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from pleinair.app.paths import places
from pleinair.evals.metrics import interval
from pleinair.evals.scores.features import Features
from pleinair.evals.scores.inputs import Real, read_real
from pleinair.tools.retrieval.crossmodal.sparse import satisfaction, words
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.types import Encoder, Vectors

Protocol = Literal["coco", "longest"]
RANKS = (1, 5, 10)
_CHUNK = 256  # captions that are compared with all images at once


def queries_of(images: Sequence[Real], protocol: Protocol) -> list[tuple[str, int]]:
    """Return captions with the place of their image: all of them, or each image's longest.

    Raises:
        BadInput: an image has no caption, or there are fewer than two images.
    """
    without = [image.image.name for image in images if not image.captions]
    if without or len(images) < 2:
        example = f", such as {without[0]}" if without else ""
        raise BadInput(
            f"{len(without)} of {len(images)} images have no caption{example}.",
            "Use a library or data set of at least 2 images, all with captions.",
        )
    if protocol == "coco":
        return [(caption, place) for place, image in enumerate(images) for caption in image.captions]
    return [(max(image.captions, key=len), place) for place, image in enumerate(images)]


def ranks(
    texts: Callable[[Sequence[str]], Vectors], images: Vectors, queries: Sequence[tuple[str, int]]
) -> NDArray[np.int64]:
    """Return for each query how many other images are at least as near as its own: [queries], 0 is the best.

    Args:
        texts: embeds texts, rows of length 1.
        images: vectors of all images, [n, dim], rows of length 1.
        queries: texts with the rows of their images.
    """
    result = []
    for start in range(0, len(queries), _CHUNK):
        some = queries[start : start + _CHUNK]
        cosines = texts([text for text, _ in some]) @ images.T
        own = cosines[np.arange(len(some)), [place for _, place in some]]
        result.append((cosines >= own[:, None]).sum(axis=1) - 1)
    return np.concatenate(result)


def coverage(
    images: Sequence[Real], subqueries: Sequence[str], own: int, order: Sequence[int]
) -> dict[str, float]:
    """Return the share of sub-queries that captions of the nearest images contain, without the own one.

    Args:
        images: of the library.
        subqueries: of one caption, at least one.
        own: place of its image.
        order: places of the images, nearest first.
    """
    others = [place for place in order if place != own]
    flags = np.array(satisfaction(["\n".join(images[place].captions) for place in others], subqueries))
    shares = {f"coverage@{k}": float(flags[:k].any(axis=0).mean()) for k in RANKS}
    return shares | {"coverage, library": float(flags.any(axis=0).mean())}


def add(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "recall",
        help="measure R@K and coverage on a library with captions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "library", type=Path, help="library with captions, or folder of COCO, Flickr30K or CUB"
    )
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="MODEL=WEIGHTS",
        help="open_clip's, with @COMMIT; or local-dir:FOLDER",
    )
    parser.add_argument("--split", default="", help="of a data set: train, val or test (all)")
    parser.add_argument(
        "--protocol",
        choices=get_args(Protocol),
        default="coco",
        help="every caption asks, or the longest (coco)",
    )
    parser.add_argument(
        "--subqueries",
        type=Path,
        metavar="FILE",
        help='measure coverage, with lines {"prompt": …, "subqueries": […]}; those it lacks are not measured',
    )
    parser.add_argument(
        "--profile", help="let this profile's language model write the sub-queries that FILE lacks, into FILE"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the intervals (0)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from pleinair.evals.report import table
    from pleinair.evals.scores.encoders import open_clip_encoder

    if options.profile and not options.subqueries:
        raise BadInput("--profile writes sub-queries into a file.", "Name it as --subqueries FILE.")
    cache = places().cache / "scores"
    images = read_real(options.library, options.split, cache)
    queries = queries_of(images, options.protocol)
    known = _subqueries(options, [text for text, _ in queries]) if options.subqueries else {}
    encoder = open_clip_encoder(options.encoder)
    features = Features(encoder, cache)
    features.add([image.image for image in images], lambda done, total: _show(f"image {done} of {total}"))
    if without := sum(text not in known for text, _ in queries) if options.subqueries else 0:
        print(
            f"\n{without} of {len(queries)} captions have no sub-queries, and no coverage.", file=sys.stderr
        )
    values = _measure(encoder, features.rows([image.image for image in images]), images, queries, known)
    figures = [
        {
            "measure": name,
            "mean": float(np.mean(row)),
            "interval": interval(row, 0, 1, options.seed, groups),
            "n": len(row),
        }
        for name, (row, groups) in values.items()
    ]
    print(file=sys.stderr)
    if options.json:
        about = {
            "encoder": encoder.id,
            "protocol": options.protocol,
            "images": len(images),
            "seed": options.seed,
        }
        print(json.dumps(about | {"figures": figures}, indent=1))
        return
    print(f"{encoder.id}: {len(images)} images, {len(queries)} captions, protocol {options.protocol}\n")
    print(*table(_row(figure) for figure in figures), sep="\n")


def _measure(
    encoder: Encoder,
    vectors: Vectors,
    images: Sequence[Real],
    queries: Sequence[tuple[str, int]],
    known: Mapping[str, Sequence[str]],
) -> dict[str, tuple[list[float], list[int]]]:
    """Return each measure's values with the images of their queries, which are the groups."""
    found, groups = ranks(encoder.encode_text, vectors, queries), [place for _, place in queries]
    values = {f"R@{k}": ([float(rank < k) for rank in found], groups) for k in RANKS}
    for number, (text, place) in enumerate(queries):
        if parts := known.get(text):
            _show(f"coverage of caption {number + 1} of {len(queries)}")
            order = (vectors @ encoder.encode_text([text])[0]).argsort()[::-1].tolist()
            for name, share in coverage(images, parts, place, order).items():
                row, owners = values.setdefault(name, ([], []))
                row.append(share)
                owners.append(place)
    return values


def _row(figure: Mapping[str, Any]) -> dict[str, object]:
    low, high = figure["interval"]
    return {
        "measure": figure["measure"],
        "mean": f"{figure['mean']:.3f}",
        "95 % interval": f"{low:.3f} to {high:.3f}",
        "n": figure["n"],
    }


def _subqueries(options: argparse.Namespace, prompts: Sequence[str]) -> dict[str, list[str]]:
    """Return the sub-queries in the file, after the model has added those that it lacks."""
    path: Path = options.subqueries
    known = dict(_read(path)) if path.exists() else {}
    if options.profile:
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        known |= dict(_ask(options.profile, path, missing))
    elif not known:
        raise BadInput(
            f"{path} has no sub-queries.", "Name a profile whose language model writes them: --profile."
        )
    return known


def _read(path: Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            content = json.loads(line)
            parts = [str(part) for part in content["subqueries"]]
            prompt = str(content["prompt"])
        except (ValueError, LookupError, TypeError) as error:
            raise BadInput(
                f'{path}, line {number}: accepted are lines {{"prompt": …, "subqueries": […]}}.'
            ) from error
        yield prompt, [part for part in parts if words(part)]


def _ask(profile: str, path: Path, prompts: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the model's sub-queries, each written to the file at once; those it refuses are left out."""
    from pleinair.app.engines import build_backend
    from pleinair.app.settings import load
    from pleinair.tools.crossmodal import list_subqueries
    from pleinair.tools.types import ModelFault, Refused

    settings = load(profile)
    model = build_backend("mllm", settings.mllm)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for number, prompt in enumerate(prompts):
            _show(f"sub-queries {number + 1} of {len(prompts)}")
            try:
                parts, _ = list_subqueries(
                    prompt, model=model, calls=2, decomposition=settings.crossmodal.decomposition
                )
            except (Refused, ModelFault):
                continue
            file.write(json.dumps({"prompt": prompt, "subqueries": parts}, ensure_ascii=False) + "\n")
            file.flush()
            yield prompt, parts


def _show(text: str) -> None:
    from pleinair.evals.run import show_progress

    show_progress(text)
