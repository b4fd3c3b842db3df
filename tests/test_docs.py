"""The pages that are generated from the code are up to date."""

from types import ModuleType

import pytest
from support import pocket_page, settings_page
from support.settings_page import page


@pytest.mark.parametrize("source", [settings_page, pocket_page])
def test_a_generated_page_is_up_to_date(source: ModuleType) -> None:
    assert source.PAGE.read_text("utf-8") == source.page(), "run `make docs`"


def test_every_setting_has_a_meaning() -> None:
    assert [line for line in page().splitlines() if line.endswith("|  |")] == []
