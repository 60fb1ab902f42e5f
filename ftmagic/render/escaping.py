"""Makes foreign text harmless: for HTML, and for consoles that obey escape sequences."""

from __future__ import annotations

import html
import re
import unicodedata

# Terminal sequences: CSI (colours, cursor), OSC (titles, links) up to BEL or ST, and single ones.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b."
)
_KEPT_CONTROLS = "\n\t"
_BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def plain(value: object, *, longest: int = 0) -> str:
    """Return text that does nothing to a console: no escape sequences, no control characters.

    Characters that change the direction of writing are shown by their number, because they make
    text read other than it is; half surrogate pairs become a replacement character.

    Args:
        value: Anything; None is ''.
        longest: Cut to so many characters, with an ellipsis; 0 keeps all.
    """
    raw = "" if value is None else str(value)
    if longest and len(raw) > 4 * longest:
        raw = raw[: 4 * longest]  # do not clean what is not shown
    cleaned = "".join(_harmless(each) for each in _ESCAPES.sub("", raw))
    if longest and len(cleaned) > longest:
        return cleaned[: longest - 1] + "…"
    return cleaned


def text(value: object, *, longest: int = 0) -> str:
    """Return `plain` text escaped for HTML, for elements and for quoted attributes."""
    return html.escape(plain(value, longest=longest), quote=True)


def _harmless(character: str) -> str:
    if character in _KEPT_CONTROLS:
        return character
    if character in _BIDI_CONTROLS:
        return f"[U+{ord(character):04X}]"
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    return "" if category == "Cc" else character
