"""Drivers to compare with: rules of this project, an ideal that knows what is meant, and two naive ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.tool import tool_call

from pleinair.evals.driving.conversations import Line
from pleinair.evals.driving.engines import Truth, TruthfulChat
from pleinair.tools.pocket.catalogue.language.chat import CatalogueLanguage
from pleinair.tools.pocket.chat_driver import drive, is_driving
from pleinair.tools.pocket.chat_payload import Json, read_payload
from pleinair.tools.pocket.language import Change, OutsideWorld


class RulesDriver(TruthfulChat):
    """Pocket chat model, driving by its rules; the critic knows the truth."""

    def _answer(self, names: Sequence[str], messages: Sequence[BaseMessage]) -> AIMessage:
        if is_driving(names):
            return self.drive(messages)
        return super()._answer(names, messages)

    def drive(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """Return the next reply of a driver."""
        return drive(self, messages)


class _MeantLanguage(CatalogueLanguage):
    """Language that does not read a line but knows what it means."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def answer(self, line: str) -> str:
        """Return no answer: `change` refuses what is not drawn."""
        return ""

    def change(self, line: str, before: str) -> Change:
        """Return what the line means; raise `OutsideWorld` if nothing is to be drawn."""
        if not self._line.draws:
            raise OutsideWorld("This is not drawn")
        return Change(self._line.draws, ", ".join(self._line.vetoes), self._line.vetoes)


class IdealDriver(RulesDriver):
    """Driver that knows what `line` means, and does as the rules do with it."""

    line: Line | None = None

    @property
    def language(self) -> CatalogueLanguage:
        """Return the language that knows the line."""
        return _MeantLanguage(self.line) if self.line else CatalogueLanguage()


class CarelessDriver(RulesDriver):
    """Naive driver that never critiques: it generates one image and finishes."""

    def drive(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """Return the first calls of the rules, then `finish`."""
        if read_payload(messages)["concepts"]:
            return _reply(messages, ("finish", {"reason": "the image is drawn"}))
        return drive(self, messages)


class EagerDriver(RulesDriver):
    """Naive driver that retrieves for every concept before its first image, whether it needs to or not."""

    def drive(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """Return the calls of the rules, with retrievals before the first image."""
        reply = drive(self, messages)
        decompose = next((call for call in reply.tool_calls if call["name"] == "decompose"), None)
        if decompose is None:
            return reply
        names = [concept["name"] for concept in decompose["args"]["concepts"]]
        retrievals = [("retrieve", {"concept": name}) for name in names]
        repairs = [
            {"concept": name, "action": "add_reference", "why": "every concept gets one"} for name in names
        ]
        others = [
            (call["name"], call["args"])
            for call in reply.tool_calls
            if call["name"] not in ("decompose", "generate")
        ]
        return _reply(
            messages,
            ("decompose", decompose["args"]),
            *others,
            *retrievals,
            ("generate", {"repairs": repairs}),
        )


def _reply(messages: Sequence[BaseMessage], *calls: tuple[str, Json]) -> AIMessage:
    """Return a reply with tool calls; their ids are of this point of the conversation."""
    numbered = enumerate(calls)
    return AIMessage(
        "",
        tool_calls=[
            tool_call(name=name, args=args, id=f"call_{len(messages)}_{number}")
            for number, (name, args) in numbered
        ],
    )


DRIVERS: Mapping[str, type[RulesDriver]] = {
    "ideal": IdealDriver,
    "rules": RulesDriver,
    "retrieves everything": EagerDriver,
    "never critiques": CarelessDriver,
}


def build_driver(name: str, truth: Truth | None) -> RulesDriver:
    """Build a driver of `DRIVERS`; without a truth its critic is the trained detector."""
    return DRIVERS[name](world="catalogue", truth=truth)
