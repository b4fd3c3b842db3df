"""How a question to a model may fail: each way has its own text, and none looks like an answer."""

from __future__ import annotations

from pleinair.tools.types import ModelFault, PleinairError, Refused


class Filtered(Refused):
    """The provider's filter took the question or the answer away; the model itself said nothing."""


class CutOff(ModelFault):
    """The answer ended at the cap of tokens; a part of an answer is never used."""


class Empty(ModelFault):
    """The model answered with nothing at all."""


class Misfit(ModelFault):
    """The answer does not fit what was asked for; `said` is its beginning, for the second question."""

    def __init__(self, reason: str, said: str = "") -> None:
        super().__init__(reason)
        self.said = said


class BadReply(ModelFault):
    """What came back is not the reply of a model: no JSON, no choices, a redirect."""


class TooLarge(BadReply):
    """What comes back is larger than any answer."""


class Unavailable(PleinairError):
    """The model could not be asked: a wrong key, an unknown model, no server, no time."""
