"""How works are cited: seventeen styles, from APA to a BibTeX entry and a blog post.

A style is a function from a work and a `Dice` to text that prints the first author's family name,
the year and the title as they are. Initials, given names, volumes, pages, shelf marks and access
dates are invented, the same every time; they are there to be ignored. Nothing here knows of
passages, splits or models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar
from zlib import crc32

from ftmagic.data.works import Work

T = TypeVar("T")
_LETTERS = "ABCDEFGHJKLMNPRSTW"
_GIVEN = ("Ana", "Bruno", "Clara", "Dieter", "Elena", "Farid", "Grace", "Henrik", "Irene", "Jan")
_MONTHS = ("Jan.", "Feb.", "Mar.", "May", "Jun.", "Sept.", "Oct.", "Nov.")


class Dice:
    """Repeatable choices; uses `Random.random()` alone, which Python promises to keep."""

    def __init__(self, seed: str) -> None:
        """Start the sequence that belongs to a seed."""
        self._random = random.Random(seed)

    def number(self, low: int, high: int) -> int:
        """Choose a whole number from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, values: Sequence[T]) -> T:
        """Choose one value."""
        return values[self.number(0, len(values) - 1)]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """Copy the values in another order."""
        keys = [self._random.random() for _ in values]
        return [value for _, value in sorted(zip(keys, values, strict=True), key=lambda p: p[0])]


Style = Callable[[Work, Dice], str]


def apa(work: Work, dice: Dice) -> str:
    """Baltagi, B. H. (1981). Title. Journal, 17(2), 189-200."""
    tail = "" if work.is_book else f", {dice.number(2, 90)}({dice.number(1, 4)}), {_pages(dice)}"
    return f"{_authors(work, dice, '{name}, {a}. {b}.', ', & ')} ({work.year}). " + _close(
        f"{_stop(work.title)} {work.venue}{tail}"
    )


def mla(work: Work, dice: Dice) -> str:
    """Baltagi, Badi, and Qi Li. "Title." Journal, vol. 17, 1981, pp. 189-200."""
    tail = "" if work.is_book else f" vol. {dice.number(2, 90)},"
    pages = "" if work.is_book else f", pp. {_pages(dice)}"
    venue = f" {work.venue}," if work.venue else ""
    author = _stop(_authors(work, dice, "{name}, {given}", ", and ", later="{given} {name}"))
    return f'{author} "{_stop(work.title)}"{venue}{tail} {work.year}{pages}.'


def chicago_notes(work: Work, dice: Dice) -> str:
    """12. Badi Baltagi and Qi Li, "Title," Journal 17, no. 2 (1981): 189."""
    author = _authors(work, dice, "{given} {name}", " and ")
    number, page = dice.number(2, 60), dice.number(3, 400)
    if work.is_book:
        venue = f"{work.venue}, " if work.venue else ""
        return f"{number}. {author}, {work.title} ({venue}{work.year}), {page}."
    volume = f"{dice.number(2, 90)}, no. {dice.number(1, 4)}"
    return (
        f'{number}. {author}, "{_comma(work.title)}" {work.venue} {volume} ({work.year}): {page}.'
    )


def ieee(work: Work, dice: Dice) -> str:
    """[7] B. Baltagi and Q. Li, "Title," Journal, vol. 17, no. 2, pp. 189-200, Mar. 1981."""
    author = _authors(work, dice, "{a}. {name}", " and ")
    venue = f" {work.venue}," if work.venue else ""
    if not work.is_book:
        venue += f" vol. {dice.number(2, 90)}, pp. {_pages(dice)}, {dice.pick(_MONTHS)}"
    return f'[{dice.number(1, 48)}] {author}, "{_comma(work.title)}"{venue} {work.year}.'


def vancouver(work: Work, dice: Dice) -> str:
    """Baltagi BH, Li Q. Title. Journal. 1981;17(2):189-200."""
    author = _authors(work, dice, "{name} {a}{b}", ", ")
    tail = "" if work.is_book else f";{dice.number(2, 90)}({dice.number(1, 4)}):{_pages(dice)}"
    venue = f" {_stop(work.venue)}" if work.venue else ""
    return f"{author}. {_stop(work.title)}{venue} {work.year}{tail}."


def harvard(work: Work, dice: Dice) -> str:
    """Baltagi, B. and Li, Q., 1981, 'Title', Journal, vol. 17, pp. 189-200, viewed 4 May 2018."""
    author = _authors(work, dice, "{name}, {a}.", " and ")
    venue = f", {work.venue}" if work.venue else ""
    tail = "" if work.is_book else f", vol. {dice.number(2, 90)}, pp. {_pages(dice)}"
    viewed = f", viewed {dice.number(2, 28)} May {dice.number(2015, 2022)}"
    return f"{author} {work.year}, '{work.title}'{venue}{tail}{dice.pick(('', viewed))}."


def narrative(work: Work, dice: Dice) -> str:
    """In their 1981 paper "Title", Baltagi and Li take the question up."""
    author = _authors(work, dice, "{name}", " and ")
    plural = len(work.authors) > 1
    verb = dice.pick(("ask" if plural else "asks", "show" if plural else "shows"))
    whose = dice.pick(("their", "the") if plural else ("a", "the"))
    kind = "book" if work.is_book else dice.pick(("paper", "article"))
    claim = "why this is so" if verb.startswith("ask") else "where the difficulty lies"
    return f'In {whose} {work.year} {kind} "{work.title}", {author} {verb} {claim}.'


def syllabus(work: Work, dice: Dice) -> str:
    """* Week 5: Baltagi and Li, Title (1981), pp. 20-41."""
    author = _authors(work, dice, "{name}", " and ")
    reading = dice.pick((f"pp. {_pages(dice)}", f"chapter {dice.number(2, 9)}", "all of it"))
    return f"* Week {dice.number(2, 14)}: {author}, {work.title} ({work.year}), {reading}."


def catalogue_card(work: Work, dice: Dice) -> str:
    """Author: Baltagi, B. / Title: Title / Year: 1981 / Shelf: QA 278.3."""
    lines = [
        f"Author: {_authors(work, dice, '{name}, {given}', '; ')}",
        f"Title: {work.title}",
        f"In: {work.venue}" if work.venue else "Format: print",
        f"Year: {work.year}",
        f"Shelf: {dice.pick(('QA', 'HB', 'QH'))} {dice.number(139, 541)}.{dice.number(1, 9)}",
    ]
    return "\n".join(lines)


def abstract(work: Work, dice: Dice) -> str:
    """We revisit "Title" (Baltagi and Li, 1981) with newer data."""
    author = _authors(work, dice, "{name}", dice.pick((" and ", " & ")))
    verb = dice.pick(("revisit", "replicate", "build on"))
    data = dice.pick(("newer data", f"{dice.number(120, 900)} more observations"))
    return f'We {verb} "{work.title}" ({author}, {work.year}) with {data}.'


def nature(work: Work, dice: Dice) -> str:
    """Baltagi, B. H. & Li, Q. Title. Journal 17, 189-200 (1981)."""
    author = _authors(work, dice, "{name}, {a}. {b}.", " & ")
    tail = "" if work.is_book else f" {dice.number(2, 90)}, {_pages(dice)}"
    venue = f" {work.venue}" if work.venue else ""
    return f"{author} {_stop(work.title)}{venue}{tail} ({work.year})."


def chicago_author_date(work: Work, dice: Dice) -> str:
    """Baltagi, Badi. 1981. "Title." Journal 17 (2): 189-200."""
    author = _stop(_authors(work, dice, "{name}, {given}", ", and ", later="{given} {name}"))
    tail = "" if work.is_book else f" {dice.number(2, 90)} ({dice.number(1, 4)}): {_pages(dice)}"
    return f'{author} {work.year}. "{_stop(work.title)}" ' + _close(f"{work.venue}{tail}")


def bibtex(work: Work, dice: Dice) -> str:
    """@article{baltagi81, author = {Baltagi, B. and Li, Q.}, title = {Title}, year = 1981}."""
    kind = "book" if work.is_book else "article"
    key = f"{work.authors[0].lower().replace(' ', '')}{work.year % 100:02d}{dice.pick(('', 'a'))}"
    venue = f"  {'publisher' if work.is_book else 'journal'} = {{{work.venue}}},\n"
    return (
        f"@{kind}{{{key},\n  title = {{{work.title}}},\n"
        f"  author = {{{_authors(work, dice, '{name}, {a}.', ' and ')}}},\n"
        f"{venue if work.venue else ''}  year = {{{work.year}}}\n}}"
    )


def footnote(work: Work, dice: Dice) -> str:
    """The point goes back to Baltagi; see "Title", Journal, 1981, p. 12."""
    author = _authors(work, dice, "{name}", " and ")
    opening = dice.pick(("The point goes back to", "The argument is that of"))
    venue = f", {work.venue}" if work.venue else ""
    return f'{opening} {author}; see "{work.title}"{venue}, {work.year}, p. {dice.number(3, 400)}.'


def blog(work: Work, dice: Dice) -> str:
    """This weekend I finally read Title by Baltagi and Li. It is from 1981 and holds up well."""
    author = _authors(work, dice, dice.pick(("{given} {name}", "{name}")), " and ")
    when = dice.pick(("This weekend", "On the train", "Last night"))
    return (
        f"{when} I finally read {_quoted(work, dice)} by {author}. It is from {work.year} and "
        + (dice.pick(("holds up well.", "has not aged a day.", "still makes me think.")))
    )


def table_row(work: Work, dice: Dice) -> str:
    """1981 | Baltagi, Li | Title | Journal."""
    author = _authors(work, dice, "{name}", ", ")
    return " | ".join([str(work.year), author, work.title, work.venue or "n/a"])


def letter(work: Work, dice: Dice) -> str:
    """Could you lend me your copy of "Title"? The one by Baltagi and Li, printed in 1981."""
    author = _authors(work, dice, "{name}", " and ")
    asked = dice.pick(("Could you lend me your copy of", "Do we still have a scan of"))
    return f'{asked} "{work.title}"? I mean the one by {author}, printed in {work.year}.'


SEEN_STYLES: tuple[Style, ...] = (
    apa,
    mla,
    chicago_notes,
    ieee,
    vancouver,
    harvard,
    narrative,
    syllabus,
    catalogue_card,
    abstract,
)
"""Styles of the training passages."""

UNSEEN_STYLES: tuple[Style, ...] = (
    nature,
    chicago_author_date,
    bibtex,
    footnote,
    blog,
    table_row,
    letter,
)
"""Styles that only test passages have."""

LIST_STYLES: tuple[Style, ...] = (apa, mla, chicago_notes, ieee, vancouver, harvard, syllabus)
"""Seen styles that stand one entry a line."""


def _authors(work: Work, dice: Dice, form: str, last: str, later: str = "") -> str:
    """Write the authors, the first in `form`; long lists end in et al.

    Args:
        work: Whose authors.
        dice: Decides whether three authors are written out.
        form: A format string with `name`, `given` and the initials `a`, `b`.
        last: What joins the last author to the others.
        later: The form of all but the first; '' for the same.
    """
    names = [_name(work.authors[0], form)]
    names += [_name(name, later or form) for name in work.authors[1:]]
    if work.has_more_authors or len(names) > 3 or (len(names) == 3 and dice.number(0, 1)):
        return f"{names[0]} et al."
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + last + names[-1]


def _name(name: str, form: str) -> str:
    """Write one author with initials and a given name that depend on the family name only."""
    number = crc32(name.encode("utf-8"))
    first, second = _LETTERS[number % 18], _LETTERS[number // 18 % 18]
    return form.format(name=name, a=first, b=second, given=_GIVEN[number // 324 % len(_GIVEN)])


def _pages(dice: Dice) -> str:
    start = dice.number(2, 700)
    return f"{start}-{start + dice.number(4, 32)}"


def _quoted(work: Work, dice: Dice) -> str:
    return dice.pick((f'"{work.title}"', f"*{work.title}*"))


def _stop(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."


def _comma(text: str) -> str:
    return text if text.endswith(("?", "!")) else text + ","


def _close(text: str) -> str:
    return _stop(text.strip())
