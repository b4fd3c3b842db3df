"""The pages that are generated from the code are up to date."""

from support.settings_page import PAGE, page


def test_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"


def test_every_setting_has_a_meaning() -> None:
    assert [line for line in page().splitlines() if line.endswith("|  |")] == []
