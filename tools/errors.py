"""How a call of a model may fail: each way has its own class, and none looks like an answer."""

from __future__ import annotations

from pleinair.tools.types import ModelFault, PleinairError, Refused

_QUOTED = 2000  # characters of an invalid answer


class Filtered(Refused):
    """The provider's filter withheld the request or the answer; the model itself said nothing."""


class CutOff(ModelFault):
    """The answer ended at the cap of tokens; a part of an answer is never used."""


class EmptyAnswer(ModelFault):
    """The model answered with nothing at all."""


class InvalidAnswer(ModelFault):
    """The answer does not fit the schema; `text` is its beginning, which a repair shows to the model."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(reason)
        self.text = text[:_QUOTED]


class BadReply(ModelFault):
    """What came back is not the reply of a model: no JSON, no choices, a redirect."""


class TooLarge(BadReply):
    """What comes back is larger than any answer."""


class Unavailable(PleinairError):
    """The model could not be called: a wrong key, an unknown model, no server, no time."""


class NoImages(Unavailable):
    """The model takes no images, so it can judge none."""
