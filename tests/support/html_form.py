"""Forms of a page as a browser would send them, for tests of the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Form:
    """Form: its address, and the fields that it sends; `choices` has the values of each radio button."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    boxes: dict[str, str] = field(default_factory=dict)  # all checkboxes, with their values
    files: list[str] = field(default_factory=list)


class Forms(HTMLParser):
    """Parsed forms of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._textarea = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag == "form":
            self.forms.append(Form(values["action"]))
        name, kind = values.get("name", ""), values.get("type", "text")
        if tag == "textarea":
            self._textarea = name
            self.forms[-1].fields[name] = ""
        if tag != "input" or not name or not self.forms:
            return
        form, value = self.forms[-1], values.get("value", "on")
        if kind == "radio":
            form.choices.setdefault(name, []).append(value)
        if kind == "checkbox":
            form.boxes[name] = value
        if kind == "file":
            form.files.append(name)
        elif kind not in ("radio", "checkbox") or "checked" in values:
            form.fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.forms[-1].fields[self._textarea] += data
