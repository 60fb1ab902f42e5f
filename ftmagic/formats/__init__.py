"""Wire JSON <-> Example: pure functions, no I/O. One module a dialect.

This file only says which dialect a call speaks; a new dialect adds one suffix and one case.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from ftmagic.formats import openai_chat
from ftmagic.formats.openai_chat import Mapped
from ftmagic.types import Call

__all__ = ["Mapped", "detect_api", "map_call"]

_SUFFIXES = {
    "/chat/completions": "openai.chat",
    "/responses": "openai.responses",
    "/v1/messages": "anthropic.messages",
}
_NOT_MAPPED_YET = {
    "openai.responses": "Responses API calls are recorded but not yet turned into examples",
    "anthropic.messages": "Anthropic calls are recorded but not yet turned into examples",
}


def detect_api(url_path: str) -> str:
    """Tell the dialect from the path that a POST went to.

    Args:
        url_path: The path, or a whole URL; the query does not matter.

    Returns:
        'openai.chat', 'openai.responses', 'anthropic.messages' or 'unknown'.
    """
    path = urlsplit(url_path).path.rstrip("/")
    for suffix, api in _SUFFIXES.items():
        if path.endswith(suffix):
            return api
    return "unknown"


def map_call(call: Call, *, record_all: bool = False) -> Mapped:
    """Make training rows from a call of any dialect.

    Args:
        call: As recorded; also failed and partial ones.
        record_all: Take calls that ask for no structured output too.

    Returns:
        The examples, or the reason in words why there are none.
    """
    if call.api == "openai.chat":
        return openai_chat.examples_from_call(call, record_all=record_all)
    if call.outcome == "failed" or call.status >= 400:
        return Mapped(skipped=openai_chat.failure_reason(call))
    return Mapped(skipped=_NOT_MAPPED_YET.get(call.api, f"a call of the dialect {call.api!r}"))
