"""Passages that cite real works, and the answer key to them.

The works come from real bibliographies (`works`), the ways of citing from `citation_styles`, the
text around from `prose`. Everything is decided by one seed: the same passages on every machine.

| kind   | passages | what is tested                                                    |
|--------|----------|-------------------------------------------------------------------|
| train  | 64 + 20  | singles in ten styles; lists of one to three works in seven of them |
| seen   | 40       | singles: other works, other prose, styles that were trained on    |
| unseen | 42       | singles: other works, other prose, seven styles never trained on  |
| lists  | 24       | lists: other works, other prose, styles that were trained on      |

A work is cited in one passage only, so no test work is ever trained on. A list of two takes works
with titles of up to nine words, a list of three up to six, so that passage and answer stay near the
448 tokens that the built-in student was brought up on (three of the lists reach 467 to 507).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from ftmagic.data import recording_line, write_lines
from ftmagic.data.citation_styles import LIST_STYLES, SEEN_STYLES, UNSEEN_STYLES, Dice, Style
from ftmagic.data.prose import sentences
from ftmagic.data.works import Work, works
from ftmagic.errors import unknown_name
from ftmagic.types import Json

Kind = Literal["train", "seen", "unseen", "lists"]

SEED = "ftmagic citations 2"
"""Change it and every passage, every split and every recorded answer changes."""

ANSWER_KEY = "answer-key"
"""The name under which the answers are served as a model."""

_N_TRAIN_SINGLES, _N_TRAIN_LISTS = 64, 20
_N_SEEN, _N_UNSEEN, _N_LISTS = 40, 42, 24
_MAX_TITLE_WORDS = {1: 25, 2: 9, 3: 6}  # by the number of works in a list
_MIN_WORDS = 40


@dataclass(frozen=True)
class Citation:
    """What is to be extracted for one work.

    Attributes:
        author: The first author's family name, as printed.
        year: Of publication.
        title: Verbatim.
    """

    author: str
    year: int
    title: str


@dataclass(frozen=True)
class Passage:
    """A text that cites one to three works.

    Attributes:
        id: Unique, such as 'train-07'.
        source: The cited works, as text: equal for passages about the same works.
        style: The citation style, such as 'apa'.
        kind: Which set it belongs to.
        is_list: Whether a list is asked for (it may hold a single citation).
        text: What the model reads.
        citations: The answers, in the order of the text.
    """

    id: str
    source: str
    style: str
    kind: Kind
    is_list: bool
    text: str
    citations: tuple[Citation, ...]

    @property
    def answer(self) -> Json:
        """The structured answer: `{author, year, title}`, or `{citations: [...]}` for a list."""
        records = [asdict(citation) for citation in self.citations]
        return {"citations": records} if self.is_list else records[0]


def passages(kind: Kind) -> list[Passage]:
    """Make the passages of one set, always the same ones.

    Args:
        kind: 'train', 'seen', 'unseen' or 'lists'; see the table above.

    Raises:
        UnknownNameError: There is no such set.
    """
    if kind not in get_args(Kind):
        raise unknown_name("set of passages", kind, get_args(Kind), next_step='passages("train")')
    return [passage for passage in _all_passages() if passage.kind == kind]


def write_answer_key(path: str | Path, make_request: Callable[[Passage], Json]) -> int:
    """Write the answers to all passages as a recording named 'answer-key'.

    Args:
        path: The JSON-lines file to write.
        make_request: Your own function that asks about a passage: it returns the chat-completions
            body (`messages`, `tools`, `tool_choice` or `response_format`) without the model.

    Returns:
        How many answers were written.
    """
    lines = (
        recording_line(ANSWER_KEY, make_request(passage), passage.answer)
        for passage in _all_passages()
    )
    return write_lines(path, lines)


@cache
def _all_passages() -> tuple[Passage, ...]:
    pool = _Pool(Dice(SEED).shuffled(works()))
    test_lists = list(_lists("lists", _N_LISTS, pool))
    train_lists = list(_lists("train", _N_TRAIN_LISTS, pool))
    seen = _singles("seen", _N_SEEN, SEEN_STYLES, pool)
    unseen = _singles("unseen", _N_UNSEEN, UNSEEN_STYLES, pool)
    train_singles = list(_singles("train", _N_TRAIN_SINGLES, SEEN_STYLES, pool))
    train = Dice(f"{SEED} order").shuffled([*train_singles, *train_lists])
    return (*train, *seen, *unseen, *test_lists)


class _Pool:
    """The works not cited yet."""

    def __init__(self, remaining: list[Work]) -> None:
        self.remaining = remaining

    def take(self, max_title_words: int = 99) -> Work:
        """Take the next work with a title of so many words at most."""
        work = next(w for w in self.remaining if len(w.title.split()) <= max_title_words)
        self.remaining.remove(work)
        return work


def _singles(kind: Kind, n: int, styles: tuple[Style, ...], pool: _Pool) -> Iterator[Passage]:
    for index in range(n):
        style, work = styles[index % len(styles)], pool.take()
        dice = Dice(f"{SEED} {kind} {index}")
        text = _with_prose(style(work, dice), work, dice, is_test=kind != "train")
        yield _passage(f"{kind}-{index:02d}", kind, style, [work], text, is_list=False)


def _lists(kind: Kind, n: int, pool: _Pool) -> Iterator[Passage]:
    for index in range(n):
        style = LIST_STYLES[index % len(LIST_STYLES)]
        dice = Dice(f"{SEED} {kind} list {index}")
        n_works = index % 3 + 1
        cited = [pool.take(_MAX_TITLE_WORDS[n_works]) for _ in range(n_works)]
        entries = "\n".join(style(work, dice) for work in cited)
        text = _with_prose(entries, cited[0], dice, is_test=kind != "train")
        passage_id = f"train-list-{index:02d}" if kind == "train" else f"{kind}-{index:02d}"
        yield _passage(passage_id, kind, style, cited, text, is_list=True)


def _passage(
    passage_id: str, kind: Kind, style: Style, cited: list[Work], text: str, *, is_list: bool
) -> Passage:
    citations = tuple(Citation(work.authors[0], work.year, work.title) for work in cited)
    source = "; ".join(f"{c.author}: {c.title}" for c in citations)
    return Passage(passage_id, source, style.__name__, kind, is_list, text, citations)


def _with_prose(entry: str, work: Work, dice: Dice, *, is_test: bool) -> str:
    """Put sentences before and after an entry until the passage is long enough."""
    before: list[str] = []
    after: list[str] = []
    for sentence in dice.shuffled(sentences(work, is_test=is_test)):
        n_words = len(" ".join([*before, entry, *after]).split())
        if n_words >= _MIN_WORDS and (before or after):
            break
        dice.pick((before, after)).append(sentence)
    gap = "\n" if "\n" in entry or entry.startswith(("*", "[", "@")) else " "
    return gap.join(part for part in (" ".join(before), entry, " ".join(after)) if part)
