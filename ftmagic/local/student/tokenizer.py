"""The student's tokenizer: BPE over 1,024 tokens, with spaces, digits and punctuation isolated.

Because a word never merges with the space or quote beside it, a value has the same tokens in the
passage and in the JSON. That is what lets so small a model learn to copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ftmagic.local.schema import compact_json
from ftmagic.local.student.tasks import STAGES, sample_task
from ftmagic.local.student_format import END, PAD, SPECIAL_TOKENS

VOCAB_SIZE = 1024
_PIECES = r"[^\W\d_]+|\d|\s|[^\w\s]|_"


def build_tokenizer(seed: int, n_tasks: int = 12_000) -> PreTrainedTokenizerFast:
    """Train the tokenizer on generated tasks.

    Args:
        seed: Fixes the tasks.
        n_tasks: How many tasks to read; 12,000 take about 10 s.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, n_tasks), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[t for t in SPECIAL_TOKENS if t not in (PAD, END)],
        clean_up_tokenization_spaces=False,
    )


def _texts(seed: int, n_tasks: int) -> Iterator[str]:
    rng = Random(seed)
    for _ in range(n_tasks):
        row = sample_task(rng, STAGES - 1)
        yield row["messages"][-2]["content"]
        yield compact_json([message.get("content") for message in row["messages"][:-1]])
