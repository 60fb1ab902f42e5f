"""Holds generated tokens to a grammar, with llguidance: which tokens may come next.

Knows grammars and token ids; nothing about models, requests or tensors.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from numpy.typing import NDArray

from ftmagic.errors import DataError, EngineError

_CACHED_GRAMMARS = 64


class GrammarCompiler:
    """Compiles grammars for one tokenizer and keeps the recent ones.

    Args:
        tokenizer: transformers' fast tokenizer.
        vocab_size: Of the model's logits, which may be padded.
        end_token_ids: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, end_token_ids: list[int]) -> None:
        """Build llguidance's view of the tokenizer (milliseconds to a second, by its size)."""
        self._tokenizer: LLTokenizer = from_tokenizer(
            tokenizer, n_vocab=vocab_size, eos_token=end_token_ids
        )
        self._vocab_size = vocab_size
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, grammar: str) -> Constraint:
        """Return a fresh constraint for a grammar in llguidance's Lark dialect.

        Raises:
            DataError: llguidance cannot enforce it; with its own words.
        """
        with self._lock:
            matcher = self._compiled.pop(grammar, None)
            if matcher is None:
                matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
            if matcher.is_error():
                raise DataError(
                    "the schema cannot be enforced while generating: "
                    f"{matcher.get_error().splitlines()[0]}"
                )
            self._compiled[grammar] = matcher
            while len(self._compiled) > _CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
            return Constraint(matcher.deep_copy(), self._vocab_size)


class Constraint:
    """The state of one constrained answer.

    Args:
        matcher: llguidance's parser at the start of the answer.
        vocab_size: Of the logits.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        """Keep the parser."""
        self._matcher = matcher
        self._vocab_size = vocab_size

    def allowed(self) -> NDArray[np.bool_]:
        """Say which tokens may come next, shape (V,).

        Raises:
            EngineError: The grammar went beyond llguidance's limits.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(np.bool_)
        return allowed

    def forced(self) -> list[int]:
        """Return the tokens that must come next, [] where there is a choice."""
        return list(self._matcher.compute_ff_tokens())

    def consume(self, token_ids: list[int]) -> None:
        """Go on by tokens that were allowed.

        Raises:
            EngineError: One was not.
        """
        self._matcher.consume_tokens(token_ids)
        self._check()

    @property
    def is_complete(self) -> bool:
        """Whether the answer satisfies the grammar as it stands."""
        return bool(self._matcher.is_accepting())

    @property
    def is_stopped(self) -> bool:
        """Whether nothing but the end can follow."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"constrained generation failed: {self._matcher.get_error()[:300]}")
