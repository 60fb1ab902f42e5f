"""Generates text with a loaded model: cached decoding, held to a grammar, streamed as it grows.

Knows models, token ids and grammars; what a request means is `chat.py`'s, what a reply looks like
is `pool.py`'s. Importing it imports torch (seconds): the server does so in a worker thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from ftmagic.local.chat import load_chat_format
from ftmagic.local.chat_request import Sampling
from ftmagic.local.constraint import Constraint, GrammarCompiler

SMALL_PARAMETERS = 50_000_000
"""Below this, one thread decodes fastest: a step is too short to share."""

_UNFINISHED = "\ufffd"  # how a decoder shows the first bytes of a character


@dataclass(frozen=True)
class Output:
    """What was generated.

    Attributes:
        text: Without the end token and without the stop text.
        n_tokens: New tokens, the end token included.
        is_finished: False where the token limit cut it off.
    """

    text: str
    n_tokens: int
    is_finished: bool


class LoadedModel:
    """A model in memory; it answers one request at a time.

    Args:
        folder: config, safetensors and tokenizer files.

    Attributes:
        format: Turns requests into token ids and text into messages.
        context_tokens: Longest sequence, prompt and answer together.
    """

    def __init__(self, folder: Path) -> None:
        """Load from safetensors only, running no code of the checkpoint's own."""
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = load_model(folder).eval()
        self._tokenizer = tokenizer
        self.format = load_chat_format(tokenizer)
        self.context_tokens = context_tokens_of(self._model)
        vocab_size = self._model.get_output_embeddings().weight.shape[0]
        self._compiler = GrammarCompiler(tokenizer, vocab_size, self.format.end_token_ids)
        self._n_threads = decode_threads(self._model)
        self._skips_forced = self._chunks_agree()
        self._lock = threading.Lock()

    def constraint(self, grammar: str | None) -> Constraint | None:
        """Compile a grammar; None for free text.

        Raises:
            DataError: It cannot be enforced.
        """
        return None if grammar is None else self._compiler.compile(grammar)

    @torch.inference_mode()
    def generate(
        self,
        prompt_ids: list[int],
        *,
        constraint: Constraint | None,
        sampling: Sampling,
        max_tokens: int,
        on_text: Callable[[str], None] | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Output:
        """Generate one answer.

        Args:
            prompt_ids: The rendered prompt, shape (T,).
            constraint: A fresh one, or None for free text.
            sampling: How to choose tokens.
            max_tokens: Most new tokens, at least 1.
            on_text: Called with the whole text so far whenever it has grown.
            is_cancelled: Asked before each step; True ends the answer with what there is.

        Raises:
            EngineError: The constraint failed.
        """
        with self._lock:
            torch.set_num_threads(self._n_threads)
            decoding = _Decoding(self._model, prompt_ids, constraint, sampling, self._skips_forced)
            while len(decoding.new_ids) < max_tokens and not is_cancelled():
                decoding.step(self.format.end_token_ids, max_tokens)
                text = self._text(decoding.new_ids) if on_text or sampling.stop else ""
                cut = _first_stop(text, sampling.stop)
                if cut is not None:
                    return Output(text[:cut], decoding.n_tokens, True)
                if on_text is not None:
                    on_text(_safe_prefix(text, sampling.stop))
                if decoding.is_finished:
                    break
            return Output(self._text(decoding.new_ids), decoding.n_tokens, decoding.is_finished)

    def _text(self, token_ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    @torch.inference_mode()
    def _chunks_agree(self) -> bool:
        """Whether several tokens may follow a cached prompt in one pass.

        Models with convolution or recurrent state do this right in some versions of transformers
        and wrong in others, so it is measured.
        """
        ids = torch.tensor([self.format.encode_prompt(_PROBE)], device=self._model.device)[:, :24]
        cache = self._model(input_ids=ids[:, :-3], use_cache=True).past_key_values
        chunked = self._model(input_ids=ids[:, -3:], past_key_values=cache, use_cache=True)
        whole = self._model(input_ids=ids)
        return bool(torch.allclose(chunked.logits[0, -1], whole.logits[0, -1], atol=1e-3))


class _Decoding:
    """The state of one answer: the model's cache and the tokens so far."""

    def __init__(
        self,
        model: Any,
        prompt_ids: list[int],
        constraint: Constraint | None,
        sampling: Sampling,
        skips_forced: bool,
    ) -> None:
        self._model = model
        self._constraint = constraint
        self._sampling = sampling
        self._skips_forced = skips_forced and constraint is not None
        self._cache: Any = None
        self._pending = list(prompt_ids)  # tokens that the model has not seen yet
        self._generator = _seeded(sampling, model.device)
        self.new_ids: list[int] = []
        self.n_tokens = 0
        self.is_finished = False

    def step(self, end_token_ids: list[int], max_tokens: int) -> None:
        """Choose the next token, and take along what it forces."""
        ids = torch.tensor([self._pending], device=self._model.device)  # (1, t)
        output = self._model(
            input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        self._cache = output.past_key_values
        logits = output.logits[0, -1].float()  # (V,)
        if self._constraint is not None:
            allowed = torch.from_numpy(self._constraint.allowed()).to(logits.device)
            logits = logits.masked_fill(~allowed, float("-inf"))
        token = choose(logits, self._sampling, self._generator)
        self.n_tokens += 1
        if token in end_token_ids:
            self.is_finished = True
            return
        self._take([token])
        if self._skips_forced and not self.is_finished:
            self._take_forced(max_tokens - len(self.new_ids), end_token_ids)

    def _take_forced(self, room: int, end_token_ids: list[int]) -> None:
        assert self._constraint is not None, "only a constraint forces tokens"
        forced = self._constraint.forced()[:room]
        if forced and not set(forced) & set(end_token_ids):
            self._pending += forced
            self.n_tokens += len(forced)
            self._consume(forced)

    def _take(self, tokens: list[int]) -> None:
        self._pending = list(tokens)
        self._consume(tokens)

    def _consume(self, tokens: list[int]) -> None:
        self.new_ids += tokens
        if self._constraint is not None:
            self._constraint.consume(tokens)
            self.is_finished = self._constraint.is_stopped


def load_model(folder: Path) -> Any:
    """Load a causal language model: float32 on the CPU, its own type on a GPU."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # or a note about a faster kernel, at each load
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32 if device == "cpu" else "auto",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    return model.to(device)


def decode_threads(model: Any) -> int:
    """Choose the number of CPU threads for decoding."""
    return 1 if count_parameters(model) < SMALL_PARAMETERS else (os.cpu_count() or 1)


def count_parameters(model: Any) -> int:
    """Count a model's weights; tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def context_tokens_of(model: Any) -> int:
    """Return the longest sequence that a model reads, prompt and answer together."""
    return int(model.config.get_text_config().max_position_embeddings)


def choose(
    logits: torch.Tensor, sampling: Sampling, generator: torch.Generator | None = None
) -> int:
    """Choose a token.

    Args:
        logits: Shape (V,), -inf where a token is not allowed.
        sampling: Temperature 0 takes the best; otherwise the nucleus `top_p` is sampled.
        generator: Source of randomness; None is torch's own.
    """
    if sampling.temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)  # (V,)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        before = ordered.cumsum(-1) - ordered  # mass of the better tokens; 0 for the best
        probabilities = torch.zeros_like(probabilities).scatter(
            0, order, ordered.masked_fill(before > sampling.top_p, 0.0)
        )
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _seeded(sampling: Sampling, device: torch.device) -> torch.Generator | None:
    if sampling.seed is None:
        return None
    generator = torch.Generator(device)
    generator.manual_seed(sampling.seed % 2**63)
    return generator


def _first_stop(text: str, stops: tuple[str, ...]) -> int | None:
    positions = [text.find(stop) for stop in stops if stop in text]
    return min(positions) if positions else None


def _safe_prefix(text: str, stops: tuple[str, ...]) -> str:
    """Cut what may still change: half a character, or what may become a stop text."""
    text = text.rstrip(_UNFINISHED)
    held = max((len(stop) - 1 for stop in stops), default=0)
    return text[: len(text) - held] if held else text


_PROBE = {
    "messages": [{"role": "user", "content": "The quick brown fox jumps over the lazy dog, twice."}]
}
