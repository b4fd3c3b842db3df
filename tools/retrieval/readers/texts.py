"""Text files of unknown encoding: UTF-8, UTF-16 or UTF-32 by their marks, or else Windows-1252."""

from __future__ import annotations

import codecs
import re

_MARKS = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN = re.compile("[^\0-\x7f]{4}|\u0192")  # what another encoding looks like when read as Windows-1252
_SAMPLE = 200  # bytes looked at for UTF-16 without a mark


def decode(data: bytes) -> str:
    """Return a file's text with line feeds between its lines; nothing is refused.

    In a file that is not UTF-8 as a whole, each line is read by itself, so that one odd byte spoils one line.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "") or _without_mark(data)
    if encoding != "utf-8-sig" and encoding:
        text = data.decode(encoding, "replace")
    else:
        data = data.removeprefix(codecs.BOM_UTF8)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = "\n".join(_decode_line(line) for line in data.split(b"\n"))
    return text.replace("\r\n", "\n")


def _decode_line(line: bytes) -> str:
    """Return a text as UTF-8, else Windows-1252; what is neither has U+FFFD in place of its bytes."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        text = line.decode("cp1252", "replace")
    return line.decode("ascii", "replace") if _FOREIGN.search(text) else text


def _without_mark(data: bytes) -> str:
    """Return the form of UTF-16 that a text without a mark has by its zero bytes, "" for none."""
    sample = data[:_SAMPLE]
    half = len(sample) // 2
    if half and sample[1::2].count(0) > 0.8 * half:
        return "utf-16-le"
    if half and sample[::2].count(0) > 0.8 * half:
        return "utf-16-be"
    return ""
