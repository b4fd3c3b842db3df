"""Licenses: which are free, what a choice of licenses admits, and their names and addresses."""

import pytest
from packaging.licenses._spdx import LICENSES  # the list of identifiers, which has no public name
from support.fake_retriever import FakeRetriever, corpus, ids

from pleinair.tools.retrieval.compose import RetrievalOptions, compose
from pleinair.tools.retrieval.filters import Filtered, without
from pleinair.tools.retrieval.licenses import admits, is_free, name_and_address, spdx
from pleinair.tools.retrieve import retrieve, unlicensed_of
from pleinair.tools.types import Concept

CC = "https://creativecommons.org/licenses/"
IDENTIFIERS = [entry["id"] for entry in LICENSES.values()]


def test_free_are_the_licenses_of_creative_commons_without_nc_and_nd() -> None:
    by = {name for name in IDENTIFIERS if name.startswith("CC-BY")}
    free = {name for name in by if is_free(name)}
    assert free == {name for name in by if not {"NC", "ND"} & set(name.split("-"))}
    assert {"CC-BY-4.0", "CC-BY-SA-3.0-DE"} < free < by
    assert not any(is_free(name) for name in IDENTIFIERS if "-NC" in name or "-ND" in name)


@pytest.mark.parametrize(
    ("license", "free"),
    [
        ("CC-BY-4.0 OR CC-BY-NC-4.0", True),
        ("CC-BY-4.0 AND CC-BY-NC-4.0", False),
        ("MIT AND CC0-1.0", True),
        ("GFDL-1.3-invariants-only", False),
        ("GFDL-1.3-no-invariants-only", True),
        ("CC-BY-4.0 unless sold", False),
        ("CC BY 4.0 restricted", False),
        ("CC BY 4.0 NC", False),
        ("CC BY", True),
        ("cc-by-sa", True),
        ("CC BY 2.0 DE", True),
        ("cc by-nc", False),
        ("CC BY-NC-ND", False),
        ("GFDL", True),
        ("CC BY-SA 3.0 or GFDL", True),
        ("CC BY-NC 4.0 or GFDL", True),
        ("CC BY 4.0 or ask the author", False),
        ("https://creativecommons.org/licenses/by/2.5/scotland/", True),
        ("https://creativecommons.org/licenses/by-nc/2.5/scotland/", False),
        (
            "https://creativecommons.org/licenses/by/4.0/, https://creativecommons.org/licenses/by-nc/4.0/",
            False,
        ),
        ("https://example.org/creativecommons.org/licenses/by/4.0/", False),
        ("All rights reserved", False),
        ("Unsplash License", False),
        ("© 2020 someone", False),
        ("CC-BY-4.0\nCC-BY-NC-4.0", False),
        ("x" * 10_000, False),
    ],
)
def test_a_license_is_free_as_a_whole(license: str, free: bool) -> None:
    assert is_free(license) == free


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("Attribution 4.0 International (CC BY 4.0)", "CC-BY-4.0"),
        ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
        ("Attribution 4.0 International (CC BY-NC 4.0)", "Attribution 4.0 International (CC BY-NC 4.0)"),
        ("The MIT License (MIT)", "MIT"),
        ("CC BY\u2011SA\u00a04.0", "CC-BY-SA-4.0"),
        ("CC-PD-Mark", "CC-PDM-1.0"),
        ("GNU Free Documentation License, version 1.2", "GFDL-1.2"),
        ("Open Government Licence v3.0", "OGL-UK-3.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
        *((text, "unknown") for text in ("N/A", " Unknown", "none", "NaN", "-")),
    ],
)
def test_licenses_are_read_as_people_write_them(text: str, license: str) -> None:
    assert spdx(text) == license


@pytest.mark.parametrize("text", ["", " ", "unknown", "Unknown", "N/A", "null", "nan", "-"])
def test_what_states_no_license_is_not_known(text: str) -> None:
    assert not admits(("known",), text) and not is_free(text)


@pytest.mark.parametrize(
    ("accepted", "passing"),
    [
        ((), {"CC BY 4.0", "CC BY-NC 4.0", "mine", "unknown"}),
        (("known",), {"CC BY 4.0", "CC BY-NC 4.0", "mine"}),
        (("free",), {"CC BY 4.0"}),
        (("cc-by-nc-4.0",), {"CC BY-NC 4.0"}),
        (("free", "Mine"), {"CC BY 4.0", "mine"}),
        (("unknown",), {"unknown"}),
    ],
)
def test_a_choice_admits_licenses(accepted: tuple[str, ...], passing: set[str]) -> None:
    licenses = ("CC BY 4.0", "CC BY-NC 4.0", "mine", "unknown")
    assert {license for license in licenses if admits(accepted, license)} == passing


@pytest.mark.parametrize(
    ("license", "name", "address"),
    [
        ("CC0 1.0", "Creative Commons Zero 1.0", "creativecommons.org/publicdomain/zero/1.0/"),
        ("PDM", "Public Domain Mark 1.0", "creativecommons.org/publicdomain/mark/1.0/"),
        ("CC BY-SA 4.0", "Creative Commons Attribution-ShareAlike 4.0",
         "creativecommons.org/licenses/by-sa/4.0/"),
        ("cc-by-3.0-de", "Creative Commons Attribution 3.0 DE", "creativecommons.org/licenses/by/3.0/de/"),
        ("mit", "MIT License", "spdx.org/licenses/MIT.html"),
        ("ISC", "", "spdx.org/licenses/ISC.html"),
        ("GFDL-1.2+", "", "spdx.org/licenses/GFDL-1.2.html"),
        ("Unsplash License", "Unsplash License", "unsplash.com/license"),
        ("https://creativecommons.org/licenses/by/2.5/scotland/", "",
         "creativecommons.org/licenses/by/2.5/scotland/"),
        ("http://creativecommons.org/licenses/by-sa/3.0/igo/",
         "Creative Commons Attribution-ShareAlike 3.0 IGO", "creativecommons.org/licenses/by-sa/3.0/igo/"),
    ],
)  # fmt: skip
def test_a_license_has_a_name_and_an_address(license: str, name: str, address: str) -> None:
    assert name_and_address(license) == (name, f"https://{address}")


@pytest.mark.parametrize(
    "license", ["unknown", "", "mine", "MIT OR ISC", "https://example.org/terms", "LicenseRef-Mine"]
)
def test_what_is_no_license_of_the_list_has_no_address(license: str) -> None:
    assert name_and_address(license) == ("", "")


RIGHTS = {"a": "CC-BY-NC-4.0", "b": "unknown", "c": "CC-BY-4.0"}  # scores .9, .8, .7


def retrieved(accepted: str, threshold: float = 0.0, vetoed: str = "") -> tuple[str, tuple[str, ...], bool]:
    """Return the ids of hits, those that are excluded by license, and whether retrieval abstained."""
    options = RetrievalOptions(method="dense", licenses=(accepted,), deduplicate=0.0)
    retriever = compose(options, corpus(options, FakeRetriever("abc", None, None, **RIGHTS)))
    concept = Concept(name="wren", caption="a wren")
    result = retrieve(concept, retriever=Filtered(retriever, without(vetoed)), k=4, threshold=threshold)
    return ids(result.hits), result.excluded_by_license, result.abstained


def test_abstention_names_the_images_that_licenses_exclude() -> None:
    assert retrieved("free") == ("c", (), False)
    assert retrieved("free", threshold=0.75) == ("c", ("a", "b"), True)
    assert retrieved("known", threshold=0.85) == ("ac", (), False)
    assert retrieved("ISC") == ("", ("a", "b", "c"), True)
    assert retrieved("ISC", threshold=0.95) == ("", (), True)
    assert retrieved("ISC", vetoed="ab") == ("", ("c",), True)


def test_without_a_filter_nothing_is_searched_twice() -> None:
    options, dense = RetrievalOptions(method="dense", deduplicate=0.0), FakeRetriever("")
    retriever = compose(options, corpus(options, dense))
    assert retrieve(Concept(name="a", caption="a"), retriever=retriever, k=4, threshold=0).abstained
    assert unlicensed_of(retriever) is None and len(dense.sizes) == 1
