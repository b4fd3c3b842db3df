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


class _Faults(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.described: list[str] = []  # ids of the messages of invalid fields
        self.inside: list[str] = []  # messages that are part of a field's name
        self._is_label = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.ids.add(values.get("id", ""))
        self._is_label = self._is_label or tag == "label"
        if values.get("aria-invalid") == "true":
            self.described.append(values.get("aria-describedby", ""))
        if self._is_label and ("fault" in values.get("class", "").split() or values.get("role") == "alert"):
            self.inside.append(values.get("id", tag))

    def handle_endtag(self, tag: str) -> None:
        self._is_label = self._is_label and tag != "label"


def described_faults(text: str) -> list[str]:
    """Return the ids of the messages of the invalid fields of a page.

    Each must be on the page, and no message may be part of a label, which would read it as the field's name.
    """
    faults = _Faults(text)
    assert faults.inside == [] and set(faults.described) <= faults.ids - {""}, (
        faults.inside,
        faults.described,
    )
    return faults.described
