"""State what the papers claim, section by section, and what each section measures it on."""

from __future__ import annotations

from typing import Literal, NamedTuple

TITLES = {
    "imagerag": "ImageRAG: what is looked up",
    "captions": "ImageRAG: captions that tell the looks",
    "pool": "ImageRAG: size of the pool",
    "domain": "ImageRAG: a generic pool and one of the domain",
    "rerank": "ImageRAG: re-rankers",
    "rerank-pool": "ImageRAG: re-rankers where the right picture is not always first",
    "crossmodal": "Cross-modal RAG: coverage, and pictures without a stage",
    "binding": "Cross-modal RAG where captions lie, and without its map",
    "realrag": "RealRAG: zero, normal, reflective",
    "look-alikes": "RealRAG among look-alikes, after ten epochs",
}
NOTES = {
    "imagerag": "A library of known and rare species. Base is the draft; every mode keeps a draft that the "
    "model calls a match.",
    "captions": "A library of look-alikes. The pocket model's captions tell a name and nothing more; "
    "describing has a model that knows how each species looks and captions it so, without its name. The "
    "encoder never heard novel names.",
    "pool": "Libraries in which a rare species is every 500th picture; 0 is the draft. R@1 is of rare names.",
    "domain": "Generic is a pool of 1,000 in which a rare species is every 500th picture, domain one of 100 "
    "of rare species alone; base is the draft.",
    "rerank": "A library of look-alikes, some under a wrong name. Encoder and model know rare names and no "
    "novel ones. The paper finds re-rankers within .002 of none; hybrid is ours.",
    "rerank-pool": "Look-ups alone, in a pool of 1,000 in which a rare species is every 500th picture, of "
    "those that it has: the right one is mostly among the six that are re-ordered, and not always the first.",
    "crossmodal": "Coverage is of the species that the library has, by as many pictures as the Pareto set. "
    "References go to the generator in the prompt's order; the column instruction adds the paper's "
    "sentences, which the miniature generator was not trained to read.",
    "binding": "A library of look-alikes, of which some are captioned as what they look like, so that words "
    "alone mislead. The miniature generator reads no instruction and binds by the order of references: "
    "no map hands the same pictures over in the other order.",
    "realrag": "From `python -m pleinair.evals.realrag.run`, all tiers together. CLIP-T and CLIP-I are by "
    "the look-up's encoder; looks, style loss and the Fréchet distance by the oracle's layers; real is as "
    "many real pictures.",
    "look-alikes": "The same with as many look-alikes of rare and novel species in each library as there are "
    "pictures of species, and with ten epochs, with which the paper's figure 7 ends: a setting in which "
    "neither is at the ceiling, fixed by looking at zero and normal alone.",
}


class Claim(NamedTuple):
    """Say that one column is better than another, or about as good, by one measure on one tier."""

    better: str
    worse: str
    measure: str
    tier: str = "all"
    kind: Literal["better", "about"] = "better"

    @property
    def text(self) -> str:
        """Write the claim."""
        return f"{self.better} {'≥' if self.kind == 'better' else '≈'} {self.worse}"


def _chain(measure: str, tier: str, *columns: str) -> list[Claim]:
    """Claim that each column is better than the next."""
    return [Claim(better, worse, measure, tier) for better, worse in zip(columns, columns[1:], strict=False)]


CLAIMS: dict[str, list[Claim]] = {
    "imagerag": [
        claim
        for tier in ("rare", "two", "all")
        for claim in (
            *_chain("right", tier, "captions", "concepts", "prompt", "rephrase"),
            Claim("rephrase", "base", "right", tier, "about"),
            Claim("captions", "base", "right", tier),
        )
    ],
    "captions": [
        Claim("describing", "concepts", measure, tier)
        for measure in ("R@1", "right")
        for tier in ("rare", "novel", "all")
    ],
    "pool": [
        Claim("1000", "100", "R@1"),
        Claim("10000", "1000", "R@1"),
        *(claim for tier in ("rare", "two") for claim in _chain("right", tier, "10000", "1000", "100", "0")),
    ],
    "domain": [
        Claim("domain", "generic", "R@1"),
        *(claim for tier in ("rare", "two") for claim in _chain("right", tier, "domain", "generic", "base")),
    ],
    "rerank": [
        claim
        for measure in ("R@1", "right")
        for claim in (
            *(Claim(name, "none", measure, "all", "about") for name in ("bm25", "mllm")),
            Claim("hybrid", "none", measure, "rare", "about"),
            Claim("hybrid", "none", measure, "novel"),
        )
    ],
    "rerank-pool": [Claim(name, "none", "R@1", "all", "about") for name in ("bm25", "mllm")],
    "crossmodal": [
        *(Claim("Pareto", name, "coverage") for name in ("BM25", "dense")),
        *(Claim("all", f"no {name}", "right") for name in ("RAG", "sparse", "dense", "Pareto")),
        Claim("instruction", "all", "right"),
    ],
    "binding": [Claim("all", f"no {name}", "right") for name in ("dense", "map")],
}
