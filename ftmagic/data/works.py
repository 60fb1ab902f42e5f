"""The real works that passages cite: read, cleaned, one edition each.

Owns what is wrong with `references.jsonl` (368 references from real bibliographies) and how it is
mended; knows nothing of citation styles. What was found there, and what happens to it:

- 8 titles occur more than once (editions of a book, a paper and its preprint) and a dozen nearly so
  ("Within Estimators", "Within-groups Estimators"; a paper and its replication). What shares almost
  all words counts as one work, and the first reference of each is kept: 26 go. Too strict costs a
  reference; too lax would put one work on both sides of a split.
- The first author "Team" (R Core Team) is no family name: 2 references dropped.
- White (1986) has its editor in the place of the journal: dropped.
- "Colin Cameron", "K. Trivedi", "Heun Song" hold given names: the family name stays ("De Hoyos",
  "Van De Wiel" and other particles are kept). "others" means et al.; "Yu." loses its full stop.
- A space before a colon and a title's closing full stop go; one "ŁaTeX" is LaTeX again.
- Misprints in titles ("Initital", "Estmating") stay: a title is copied as it is printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from ftmagic.data import read_rows
from ftmagic.types import Json

_PARTICLES = ("De ", "Le ", "Van ", "van ", "von ")
_PUBLISHERS = re.compile(
    r"Wiley|Springer|[Pp]ress|Sage|Elsevier|Pearson|Prentice|Cengage|Addison|Chapman|Pudoc|^Cambridge$"
)
_SHARED_WORDS = 0.85  # of the shorter title's words: its preprint, replication or corrigendum
_ENOUGH_WORDS = 6  # below that, titles share words by chance


@dataclass(frozen=True)
class Work:
    """One work as its bibliography gives it.

    Attributes:
        authors: Family names, the first author first; never empty.
        has_more_authors: Whether the list ends in "and others".
        year: Of publication.
        title: As printed, misprints included.
        venue: Journal or publisher; '' where the bibliography names none.
    """

    authors: tuple[str, ...]
    has_more_authors: bool
    year: int
    title: str
    venue: str

    @property
    def is_book(self) -> bool:
        """Whether the venue is a publisher or missing: no volume, no pages."""
        return not self.venue or _PUBLISHERS.search(self.venue) is not None


@cache
def works() -> tuple[Work, ...]:
    """Read the works, one reference each, in the order of the bibliography."""
    chosen: list[Work] = []
    for row in read_rows("references.jsonl"):
        work = _cleaned(row)
        if work is not None and not any(is_same_work(work, other) for other in chosen):
            chosen.append(work)
    return tuple(chosen)


def normalised_title(title: str) -> str:
    """Lower-case a title and keep letters and digits only, single spaces between words."""
    return re.sub(r"[\W_]+", " ", title.lower()).strip()


def is_same_work(one: Work, other: Work) -> bool:
    """Whether two references are editions, preprints or near copies of one work."""
    first, second = normalised_title(one.title), normalised_title(other.title)
    if first == second:
        return True
    words, other_words = set(first.split()), set(second.split())
    shorter = min(len(words), len(other_words))
    return shorter >= _ENOUGH_WORDS and len(words & other_words) >= _SHARED_WORDS * shorter


def _cleaned(row: Json) -> Work | None:
    names = [_family_name(name) for name in row["authors"] if name != "others"]
    if names[0] == "Team" or row["venue"] == "Mariano, R.S.":
        return None
    title = row["title"].replace(" :", ":").replace("ŁaTeX", "LaTeX")
    if title.endswith(".") and not title.endswith("..."):
        title = title[:-1]
    has_more = len(names) < len(row["authors"])
    return Work(tuple(names), has_more, row["year"], title, row["venue"])


def _family_name(name: str) -> str:
    name = name.rstrip(".")
    return name if name.startswith(_PARTICLES) else name.split()[-1]
