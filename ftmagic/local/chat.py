"""Turns chat-completions JSON into token ids for one model, and its text back into JSON.

The door to both text formats: our own student's and any Hugging Face chat template's. Training and
serving both come through here, so a model is always asked in the words it was trained on.
"""

from __future__ import annotations

from typing import Any

from ftmagic.local.grounding import grounded_fields
from ftmagic.local.student_format import SPECIAL_TOKENS, StudentFormat
from ftmagic.local.template_format import TemplateFormat
from ftmagic.local.text_format import ChatFormat, EncodedRow

__all__ = [
    "ChatFormat",
    "EncodedRow",
    "StudentFormat",
    "TemplateFormat",
    "grounded_fields",
    "load_chat_format",
]


def load_chat_format(tokenizer: Any) -> ChatFormat:
    """Choose the format that a tokenizer was made for.

    Args:
        tokenizer: transformers' fast tokenizer; one with all of the student's markers is a student.
    """
    if set(SPECIAL_TOKENS) <= set(tokenizer.get_vocab()):
        return StudentFormat(tokenizer)
    return TemplateFormat(tokenizer)
