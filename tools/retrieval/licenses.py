"""Licenses as SPDX identifiers, from the ways in which people write them.

Read are SPDX identifiers in any case, names, titles and addresses of Creative Commons licenses, and common
names of others. A Creative Commons license without a version, or ported to a country that SPDX does not list,
has no identifier and stays as it is written; it may be free all the same. Not covered: license texts, and
exceptions (`WITH`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Literal

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

Licenses = Literal["any", "known", "free"]  # of the images that may be retrieved
UNKNOWN = "unknown"  # no license is stated
_LONGEST = 200  # characters of a text that may be an identifier, a name or an address
_UNSTATED = {"", UNKNOWN, "none", "null", "nan", "n/a", "na", "-", "--", "?", "unspecified", "undefined",
             "not specified", "not stated", "not provided"}  # fmt: skip
_ADDRESS = re.compile(
    r"(?:^|//|//www\.|[\s(])creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)"
    r"(?:/(?!deed|legalcode)([a-z]+))?"
)
_REGISTRY = re.compile(r"(?:opensource|spdx)\.org/licenses?/([\w.+-]+?)(?:\.html|/)?$")
_PUBLIC = {"zero": "CC0", "mark": "CC-PDM"}  # by the last folder of their addresses
_CREATIVE_COMMONS = re.compile(
    r"(?:cc|creative commons)? ?by((?: (?:nc|nd|sa))*) v?(\d)(?:\.(\d))?(?: ([a-z]{2}))?"
)
_PHRASES = (  # of the licenses' full names, in this order
    ("attribution", "by"),
    *((f"share{gap}alike", "sa") for gap in (" ", "")),
    *((f"non{gap}commercial", "nc") for gap in (" ", "")),
    *((f"no{gap}{word}", "nd") for gap in (" ", "") for word in ("derivatives", "derivs")),
)
_NOISE = re.compile(
    r"\b(?:the|licen[cs]ed?|under|version|deed|public license|universal|international|unported|generic|"
    r"public domain dedication)\b|\bv(?=\d)"
)
_GAPS = re.compile(r"[-_/(),:\s\u2010-\u2015\u2212]+")  # between the words of a name
_TITLE = re.compile(r"([^()]+)\(([^()]+)\)([^()]*)")  # a name and the same in brackets
_NAMES = {
    **dict.fromkeys(
        ("cc0", "cc0 1.0", "cc 0", "cc zero", "creative commons zero", "creative commons 0"), "CC0-1.0"
    ),
    **dict.fromkeys(
        (
            "public domain",
            "public domain mark",
            "public domain mark 1.0",
            "pdm",
            "cc pdm",
            "cc pdm 1.0",
            "cc pd mark",
        ),
        "CC-PDM-1.0",
    ),
    **dict.fromkeys(("mit", "expat"), "MIT"),
    **dict.fromkeys(("apache 2", "apache 2.0"), "Apache-2.0"),
    **dict.fromkeys(("gnu gpl 2.0", "gpl v2", "gplv2", "gpl 2"), "GPL-2.0-only"),
    **dict.fromkeys(("gnu gpl 3.0", "gpl v3", "gplv3", "gpl 3"), "GPL-3.0-only"),
    "bsd 3 clause": "BSD-3-Clause",
    "bsd 2 clause": "BSD-2-Clause",
    **dict.fromkeys(("free art 1.3", "fal 1.3", "art libre 1.3"), "LAL-1.3"),
    **{f"{name} 1.{n}": f"GFDL-1.{n}" for name in ("gfdl", "gnu free documentation") for n in (1, 2, 3)},
    **dict.fromkeys(("open government 3.0", "ogl 3.0", "ogl uk 3.0"), "OGL-UK-3.0"),
    **dict.fromkeys(("ouverte 2.0", "etalab 2.0"), "etalab-2.0"),
    **dict.fromkeys(("odbl 1.0", "open database 1.0"), "ODbL-1.0"),
}
_FREE_NAMES = re.compile(  # of licenses that are free in every version and country
    r"(?:cc|creative commons) by(?: sa)?(?: \d(?:\.\d)?(?: (?!n[cd]$)(?:[a-z]{2}|igo|scotland))?)?"
    r"|gfdl|gnu free documentation|fal|free art|art libre"
)
_FREE_ADDRESS = re.compile(r"https?://(?:www\.)?creativecommons\.org/licenses/by(?:-sa)?/\d\.\d/[a-z]+/?")
_SITES = {  # of images, by the name of their license
    "unsplash": ("Unsplash License", "https://unsplash.com/license"),
    "pexels": ("Pexels License", "https://www.pexels.com/license/"),
    "pixabay": ("Pixabay Content License", "https://pixabay.com/service/license-summary/"),
    "pixabay content": ("Pixabay Content License", "https://pixabay.com/service/license-summary/"),
}


_FREE_LICENSES = {  # patterns of SPDX identifiers, by the page that says they permit any use and change
    "https://creativecommons.org/public-domain/freeworks/": r"CC0-1\.0|CC-PDM-1\.0|CC-BY(-SA)?-\d.*",
    "https://opensource.org/licenses": (
        r"MIT(-0)?|0BSD|BSD-.*|Apache-2\.0|ISC|Zlib|Unlicense|OFL-1\.\d.*|MPL-2\.0|(A|L)?GPL-\d.*"
    ),
    "https://opendefinition.org/licenses/": (
        r"OGL-UK-\d\.0|etalab-2\.0|ODbL-1\.0|ODC-By-1\.0|PDDL-1\.0|CDLA-(Permissive|Sharing)-\d\.0"
    ),
    "https://www.gnu.org/licenses/license-list.html": (
        r"WTFPL|LAL-1\.\d|GFDL-1\.\d(-no-invariants)?(-only|-or-later)?"
    ),
}
_FREE = re.compile("|".join(_FREE_LICENSES.values()), re.IGNORECASE)
_TERMS = {"by": "Attribution", "nc": "NonCommercial", "nd": "NoDerivatives", "sa": "ShareAlike"}
_PAGES = {"CC0-1.0": "zero/1.0", "CC-PDM-1.0": "mark/1.0"}
_TITLES = {
    "CC0-1.0": "Creative Commons Zero 1.0",
    "CC-PDM-1.0": "Public Domain Mark 1.0",
    "MIT": "MIT License",
    "Apache-2.0": "Apache License 2.0",
    "LAL-1.3": "Licence Art Libre 1.3",
}
_CC = re.compile(r"CC-(BY(?:-(?:NC|ND|SA))*)-(\d\.\d)(?:-([A-Z]{2,3}))?")


@lru_cache(maxsize=1024)  # a library has few licenses and many images
def is_free(license: str) -> bool:
    """Return whether a license permits to use, change and share an image for any purpose.

    Of alternatives (`OR`) one is enough. False too for what is not recognised, which nothing is known about.
    """
    if len(license) > _LONGEST:
        return False
    choices = re.split(r"\s+or\s+", spdx(license), flags=re.IGNORECASE)
    free = [_is_free(choice) for choice in choices]
    return any(free) and all(free[at] or _listed(spdx(choice)) for at, choice in enumerate(choices))


def _is_free(license: str) -> bool:
    parts = _listed(spdx(license)).split(" AND ")
    if all(_FREE.fullmatch(part.strip("()")) for part in parts):
        return True
    return bool(_FREE_NAMES.fullmatch(_words(license)) or _FREE_ADDRESS.fullmatch(license.strip().lower()))


def is_stated(license: str) -> bool:
    """Return whether a text states a license at all, recognised or not; false for "N/A" and the like."""
    return license.strip().casefold() not in _UNSTATED


def admits(accepted: Collection[str], license: str) -> bool:
    """Return whether an image with a license may be used.

    Args:
        accepted: licenses in any spelling that `spdx` reads; "known" is any that is stated, "free" any that
            `is_free`; empty accepts all.
        license: of the image; without one it is "unknown".
    """
    return (
        not accepted
        or ("known" in accepted and is_stated(license))
        or ("free" in accepted and is_free(license))
        or spdx(license).casefold() in {spdx(name).casefold() for name in accepted}
    )


def name_and_address(license: str) -> tuple[str, str]:
    """Return the full name of a license and the address of its text; "" for each that is not known."""
    license = spdx(license)
    if match := _CC.fullmatch(license):
        terms, version, country = match.groups()
        title = "-".join(_TERMS[term] for term in terms.lower().split("-"))
        ported = f" {country}" if country else ""
        path = "/".join(part for part in (terms, version, country) if part).lower()
        return f"Creative Commons {title} {version}{ported}", f"https://creativecommons.org/licenses/{path}/"
    if license in _PAGES:
        return _TITLES[license], f"https://creativecommons.org/publicdomain/{_PAGES[license]}/"
    if _FREE_ADDRESS.fullmatch(license):
        return "", license
    if site := _SITES.get(_words(license)):
        return site
    is_listed = bool(_listed(license)) and " " not in license and not license.startswith("LicenseRef-")
    page = f"https://spdx.org/licenses/{license.removesuffix('+')}.html"
    return _TITLES.get(license, ""), page if is_listed else ""


@lru_cache(maxsize=1024)  # a library has few licenses and many images
def spdx(text: str) -> str:
    """Return the SPDX identifier or expression that a text means, or else the text without outer spaces.

    "unknown" for what says that none is stated.
    """
    text = text.strip()
    if len(text) > _LONGEST or not is_stated(text):
        return text if is_stated(text) or not text else UNKNOWN
    return _listed(text) or _of_address(text.lower()) or _of_name(text) or _of_title(text) or text


def _listed(text: str) -> str:
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return ""


def _of_address(text: str) -> str:
    if match := _REGISTRY.search(text):
        return _listed(match[1])
    if "apache.org/licenses/license-2.0" in text:
        return "Apache-2.0"
    addresses = set(_ADDRESS.findall(text))
    if len(addresses) != 1:  # none, or several, whose relation is not known
        return ""
    kind, code, version, country = addresses.pop()
    code = f"CC-{code}" if kind == "licenses" else _PUBLIC.get(code, "")
    return _listed("-".join(part for part in (code, version, country) if part)) if code else ""


def _of_name(text: str) -> str:
    name = _words(text)
    if name in _NAMES:
        return _NAMES[name]
    match = _CREATIVE_COMMONS.fullmatch(name)
    if match is None:
        return ""
    terms, major, minor, country = match.groups()
    parts = (
        "CC",
        "BY",
        *sorted(terms.split(), key=("nc", "nd", "sa").index),
        f"{major}.{minor or 0}",
        country,
    )
    return _listed("-".join(part for part in parts if part))


def _of_title(text: str) -> str:
    """Return the identifier of a title with its short name, such as "Attribution 4.0 (CC BY 4.0)"."""
    match = _TITLE.fullmatch(text)
    names = {_of_name(match[1] + match[3]), _of_name(match[2])} if match else set()
    return names.pop() if len(names) == 1 else ""


def _words(text: str) -> str:
    """Return the words of a license's name that matter, in small letters."""
    name = _NOISE.sub(" ", _GAPS.sub(" ", text.lower().rstrip(".")))
    for phrase, short in _PHRASES:
        name = name.replace(phrase, short)
    return " ".join(name.split())
