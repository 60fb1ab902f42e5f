"""A tiny student with random weights and rows it can learn: real parts, fit for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ftmagic.local.student_format import END, PAD, SPECIAL_TOKENS
from ftmagic.types import Json

NAMES = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo", "Kit", "Lu")
TOOL: Json = {
    "type": "function",
    "function": {
        "name": "Person",
        "parameters": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"],
        },
    },
}
FORCED: Json = {"type": "function", "function": {"name": "Person"}}


def make_student(folder: Path) -> Path:
    """Save a two-layer model of 30k random weights and its tokenizer."""
    import torch
    from transformers import Lfm2Config, Lfm2ForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(),
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=SPECIAL_TOKENS[2:],
        clean_up_tokenization_spaces=False,
    )
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        layer_types=["conv", "full_attention"],
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    Lfm2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_row(index: int) -> Json:
    """Make a training row that asks for a person and answers with a tool call."""
    name, age = NAMES[index % len(NAMES)], 20 + index
    arguments = json.dumps({"name": name, "age": age})
    call = {
        "id": f"call_{index}",
        "type": "function",
        "function": {"name": "Person", "arguments": arguments},
    }
    return {
        "messages": [
            {"role": "user", "content": f"{name} is {age} years old."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
        "tools": [TOOL],
    }


def write_rows(path: Path, rows: list[Json]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[A-Za-z]+|\d|\s|[^\sA-Za-z0-9]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{name} is years old" for name in NAMES], trainer)
    return tokenizer
