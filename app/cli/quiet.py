"""What other libraries would print between our lines."""

from __future__ import annotations

import os


def quiet() -> None:
    """Keep the hub's own log of its tries and pauses back; what fails in the end is told by us.

    Call it before `huggingface_hub` is imported: that reads the variable then, as a worker's process does. A
    user's own HF_HUB_VERBOSITY counts.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
