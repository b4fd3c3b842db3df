"""Forms: the field of a fault, and what tells one that is sent twice, as by a double click."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from starlette.datastructures import FormData

from pleinair.tools.types import BadInput

MOST_FILES, MOST_FIELDS = 1000, 5000  # of a form; its bytes are limited too, and pages say what is too many
FIELD = "form"  # hidden, with the form's name


class FieldFault(BadInput):
    """Value of one field that is not usable."""

    def __init__(self, field: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy, field=field)


@contextmanager
def of_field(name: str) -> Iterator[None]:
    """Raise a `BadInput` of the block as the fault of a field."""
    try:
        yield
    except BadInput as fault:
        raise FieldFault(name, fault.message, fault.remedy) from fault


def new_name() -> str:
    """Return a name for a form."""
    return secrets.token_hex(16)


def digest_of(form: FormData, action: str) -> str:
    """Return what is the same where a form is sent again unchanged, by the same button.

    Without a name, as programs send it, it is different each time. Reads the files of the form.
    """
    name, fields = str(form.get(FIELD) or new_name()), form.multi_items()
    values = [value if isinstance(value, str) else _digest(value.file) for _, value in fields]
    text = json.dumps([name, action, [field for field, _ in fields], values])
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(file: BinaryIO) -> str:
    digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    file.seek(0)
    return digest.hexdigest()
