"""Events of a run as they are written, by this process or another one."""

from __future__ import annotations

from pathlib import Path

from pleinair.app.runs.events import Event, parse


class EventTail:
    """Reader of a log that may grow; damaged lines are left out."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def read(self) -> list[Event]:
        """Return the events of the lines that were completed since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        end = text.rfind(b"\n") + 1
        self._offset += end
        return parse(text[:end]).events
