"""A whole chat by keyboard alone, with visible focus; reduced motion."""

from playwright.sync_api import Page, expect
from support.browser import HOOPOE, NewVisitor, Server, Visitor

MOST = 80  # presses of Tab until something must be reached
FOCUS = """() => {
  const element = document.activeElement;
  const marked = node => node && getComputedStyle(node).outlineStyle !== "none"
    && parseFloat(getComputedStyle(node).outlineWidth) >= 1;
  const name = element.getAttribute("aria-label") || element.labels?.[0]?.textContent || element.textContent;
  if (element === document.body) return ["", true];  // between the end of the page and its beginning
  return [name.trim(), marked(element) || marked(element.closest("label, form"))]}"""


def tab_to(page: Page, name: str) -> None:
    """Press Tab until a control has the focus; on the way each is visibly focused."""
    for _ in range(MOST):
        page.keyboard.press("Tab")
        text, is_marked = page.evaluate(FOCUS)
        assert is_marked, f"no visible focus: {text}"
        if text == name:
            return
    raise AssertionError(f"not reached by Tab: {name}")


def test_a_chat_by_keyboard_alone(visitor: Visitor) -> None:
    page = visitor.visit("/threads/new")
    tab_to(page, "Skip to the content")
    page.keyboard.press("Enter")
    tab_to(page, "Prompt")
    page.keyboard.type(HOOPOE)
    tab_to(page, "Send")
    page.keyboard.press("Enter")
    expect(page.locator("article .ending")).to_be_visible()
    tab_to(page, "Use as reference")
    page.keyboard.press("Space")
    expect(page.get_by_role("list", name="Reference images").get_by_role("listitem")).to_have_count(1)
    tab_to(page, "Use @1")
    page.keyboard.press("Space")
    expect(page.get_by_label("Use @1")).not_to_be_checked()
    tab_to(page, "Undo")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_have_count(0)


def test_nothing_moves_where_that_is_not_wanted(slow_server: Server, visitors: NewVisitor) -> None:
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page = visitors(slow_server, reduced_motion=motion).visit("/threads/new")
        page.get_by_label("Prompt", exact=True).fill(HOOPOE)
        page.get_by_role("button", name="Send").click()
        expect(page.locator("article .activity.live")).to_be_visible()
        script = "document.getAnimations().filter(each => each.playState === 'running').length > 0"
        assert page.evaluate(script) == moves
        page.get_by_role("button", name="Stop").click()
