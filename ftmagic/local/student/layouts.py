"""Random layouts: how the values of one record are put into a passage.

A layout says which pieces a passage has (some are asked for, some only distract), in what order,
with what words before them, what quotes around them and what marks between them. It is drawn at
random, and filled with values once per record.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ftmagic.local.student import corpus, values
from ftmagic.local.student.people import PeopleStyle, draw_people_style
from ftmagic.local.student.values import Value
from ftmagic.types import Json

KEYS: dict[str, list[str]] = {
    "family": "author author author surname family_name last_name first_author lead writer".split(),
    "person": "name person contact employee owner manager host speaker patient "
    "sender artist director player driver guest agent creator writer editor".split(),
    "families": "authors authors surnames families writers people".split(),
    "persons": "authors names people speakers guests editors creators members".split(),
    "title": "title title title title title work name film song book paper headline course".split(),
    "year": "year year year year year published released date since founded born".split(),
    "venue": "venue journal publisher source series outlet published_in container".split(),
    "organisation": "company employer brand store organization school team bank supplier".split(),
    "place": "city location venue country destination origin address town region".split(),
    "phrase": "note description reason item comment detail problem goal activity".split(),
    "count": "count quantity age seats rooms points stock size score copies minutes".split(),
    "amount": "price cost salary total fee rent budget weight amount rate balance".split(),
    "date": "date day when start_date end_date deadline due arrival issued".split(),
    "code": "id sku serial ref order_id flight number tracking case_no part".split(),
    "url": "url link website source page".split(),
    "locator": "pages volume location locator issue".split(),
    "email": "email mail contact_email address".split(),
    "phone": "phone tel mobile fax".split(),
    "word": "color category kind level status mood material type severity".split(),
}
_CUES: dict[str, list[str]] = {
    "people": "by|with|from|written by|signed|for|see|ask|according to|thanks to|as|author".split(
        "|"
    ),
    "title": "called|titled|entitled|named|in|on|about|the book|the paper|a study,|article|reading"
    "|the report|presented|proposed in|their|his|her".split("|"),
    "year": "in|since|from|around|of|published in|dated|back in|year|as early as".split("|"),
    "venue": "in|published in|In:|appeared in|from|for|in the".split("|"),
    "organisation": "at|from|of|works at|with|by|sold by".split("|"),
    "place": "in|at|near|to|from|based in".split("|"),
    "phrase": "for|because of|about|regarding|due to|note that".split("|"),
    "count": "about|with|has|exactly|only|nearly".split("|"),
    "amount": "for|at|costs|paid|total of|$|€".split("|"),
    "date": "on|by|dated|due|until|from|accessed|retrieved".split("|"),
    "code": "ref|no.|number|code|as|under".split("|"),
    "url": "at|see|available at|from|URL:".split("|"),
    "locator": "at|volume|see|on".split("|"),
    "email": "at|via|write to|contact".split("|"),
    "phone": "call|at|dial|tel.".split("|"),
    "word": "is|was|marked|looks|very|rated".split("|"),
}
_AFTER_CUES: dict[str, list[str]] = {
    "people": "'s|wrote|showed that in|proposed|published|argues|introduced|(eds.)|and others in"
    "|first described|gave us".split("|"),
    "title": "was written by|is by|appeared|is discussed|came out|is a classic|shows".split("|"),
    "year": "saw|was when|already|edition".split("|"),
}
_SECOND_CUES: dict[str, list[str]] = {
    "people": "edited by|translated by|reviewed by|in honour of|(ed.)|cited by|ed.".split("|"),
    "title": "reprinted in|part of|chapter of|translated as|originally".split("|"),
    "year": "reprinted|accessed|first published|revised|cited|reviewed in".split("|"),
}
_PEOPLE_KINDS = ("family", "person", "families", "persons")
_WORK_EXTRAS = ("venue", "venue", "venue", "locator", "locator", "place", "url", "organisation")
_ANY_KINDS = (
    "person", "organisation", "place", "title", "phrase", "year", "count", "amount", "date",
    "code", "email", "phone", "word", "url", "family",
)  # fmt: skip
_MARKS = [", ", ", ", ", ", ". ", ". ", "; ", " - ", " – ", " — ", ": ", " ", " / ", " | ", "\n"]
_STRONG_MARKS = [". ", ". ", ", ", ", ", "; ", " - ", " – ", ": ", " / ", " | ", "\n", " -- "]
_WRAPS = ["''", "“”", '""', '""', "()", "[]", "**", "__", "‘’", "«»", "„“", "<>", "``", "{}"]
_LABELS = ["{key}: {}"] * 4 + [
    "{key} = {}", "{key} - {}", "{key} is {}", "{key}:{}", '"{key}": "{}"', "<{key}>{}</{key}>",
    "{key} = {{{}}}", "{key}: '{}'", "**{key}**: {}", "{key}\t{}", "[{key}] {}", '{key}="{}"',
]  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One part of a passage.

    Args:
        kind: What it holds, a key of `KEYS`.
        key: The field that asks for it, or None for a distractor.
        is_second: Whether it stands beside a wanted value of its own kind, and so needs a cue.
    """

    kind: str
    key: str | None
    is_second: bool = False

    @property
    def role(self) -> str:
        """Return the kind, with all kinds of names as `people`."""
        return "people" if self.kind in _PEOPLE_KINDS else self.kind


@dataclass(frozen=True)
class Layout:
    """How the records of one passage are written down.

    Args:
        pieces: The parts, in the order of the passage.
        befores: For each piece, the text that goes in front of it.
        afters: For each piece, the text that follows it.
        wraps: For each piece, the two marks around it, or an empty string.
        marks: For each piece, what separates it from the next; the last ends the record.
        people: How names are spelled.
        is_mark_inside: Whether a comma or full stop goes inside a closing quote.
    """

    pieces: list[Piece]
    befores: list[str]
    afters: list[str]
    wraps: list[str]
    marks: list[str]
    people: PeopleStyle
    is_mark_inside: bool = False


@dataclass(frozen=True)
class Record:
    """A passage and the values that its fields should get."""

    text: str
    fields: Json


def draw_layout(rng: Random, max_pieces: int = 7) -> Layout:
    """Draw the pieces of a record, most often a reference to a work, and how they are written."""
    pieces = _work_pieces(rng) if rng.random() < 0.6 else _mixed_pieces(rng)
    wanted = [piece for piece in pieces if piece.key]
    spare = [piece for piece in pieces if not piece.key]
    pieces = (wanted + spare)[:max_pieces]
    if rng.random() < 0.65:
        rng.shuffle(pieces)
    return _write_layout(rng, pieces)


def _work_pieces(rng: Random) -> list[Piece]:
    """Draw the parts of a reference to a work; some are asked for, the rest distract."""
    people = rng.choice(["family", "family", "family", "person", "families", "persons"])
    pieces = [Piece(people, _key(rng, people)), Piece("year", _key(rng, "year"))]
    pieces.append(Piece("title", _key(rng, "title")))
    rng.shuffle(pieces)
    if rng.random() < 0.35:
        dropped = rng.randrange(3)
        pieces[dropped] = Piece(pieces[dropped].kind, None)
    for kind in rng.sample(_WORK_EXTRAS, rng.choice([0, 0, 1, 1, 2, 3])):
        pieces.append(Piece(kind, _key(rng, kind) if rng.random() < 0.3 else None))
    if rng.random() < 0.2:
        pieces.append(Piece(rng.choice(["person", "year", "title"]), None, is_second=True))
    return _distinct(pieces)


def _mixed_pieces(rng: Random) -> list[Piece]:
    kinds = [rng.choice(_ANY_KINDS) for _ in range(rng.randint(2, 6))]
    pieces = [Piece(kind, _key(rng, kind) if rng.random() < 0.75 else None) for kind in kinds]
    if not any(piece.key for piece in pieces):
        pieces[0] = Piece(kinds[0], _key(rng, kinds[0]))
    return _distinct(pieces)


def _distinct(pieces: list[Piece]) -> list[Piece]:
    keys: set[str] = set()
    roles: set[str] = set()
    kept = []
    for piece in pieces:
        if piece.key in keys:
            continue
        keys |= {piece.key} if piece.key else set()
        kept.append(Piece(piece.kind, piece.key, piece.is_second or piece.role in roles))
        roles.add(piece.role)
    return kept


def relayout(rng: Random, layout: Layout) -> Layout:
    """Draw another way to write the same pieces."""
    return _write_layout(rng, rng.sample(layout.pieces, len(layout.pieces)))


def _write_layout(rng: Random, pieces: list[Piece]) -> Layout:
    write = rng.choices([_terse_layout, _labelled_layout, _prose_layout], [0.5, 0.12, 0.38])[0]
    return write(rng, pieces)


def _labelled_layout(rng: Random, pieces: list[Piece]) -> Layout:
    """Write `key: value` lines, or the same in some markup."""
    label = rng.choice(_LABELS)
    mark = rng.choice(["\n", "\n", ", ", "; ", " | ", ",\n", " "])
    names = [_label_name(rng, piece) for piece in pieces]
    if rng.random() < 0.5:
        names = [name.capitalize() for name in names]
    count = len(pieces)
    marks = [mark] * (count - 1) + [rng.choice(["", "."])]
    sides = [label.format("\0", key=name).split("\0") for name in names]
    befores, afters = [side[0] for side in sides], [side[1] for side in sides]
    return Layout(pieces, befores, afters, [""] * count, marks, draw_people_style(rng))


def _label_name(rng: Random, piece: Piece) -> str:
    key = piece.key if piece.key and rng.random() < 0.6 else _key(rng, piece.kind)
    return key.replace("_", " ")


def _terse_layout(rng: Random, pieces: list[Piece]) -> Layout:
    """Write the bare values with marks between them, as a reference list does."""
    usual = rng.choice(_MARKS)
    befores, wraps, marks = [], [], []
    for piece in pieces:
        cue = rng.choice(_SECOND_CUES.get(piece.role, _CUES[piece.role]))
        needs_cue = piece.is_second or (piece.role in ("venue", "place") and rng.random() < 0.3)
        befores.append(cue + " " if needs_cue else "")
        wraps.append(_draw_wrap(rng, piece))
        marks.append(usual if rng.random() < 0.5 else rng.choice(_STRONG_MARKS))
    for index in range(len(pieces) - 1):
        if wraps[index] or wraps[index + 1] or pieces[index + 1].role == "year":
            marks[index] = rng.choice([" ", marks[index]])
        elif marks[index] == " ":
            marks[index] = rng.choice(_STRONG_MARKS)
        elif {pieces[index].role, pieces[index + 1].role} <= {"year", "locator"}:
            marks[index] = rng.choice([";", ":", " ", ", ", marks[index]])
    marks[-1] = rng.choice(["", ".", ".", ";"])
    people, is_inside = draw_people_style(rng), rng.random() < 0.4
    return Layout(pieces, befores, [""] * len(pieces), wraps, marks, people, is_inside)


def _prose_layout(rng: Random, pieces: list[Piece]) -> Layout:
    """Write one sentence, with words that introduce the values."""
    befores, afters, wraps, marks = [], [], [], []
    for index, piece in enumerate(pieces):
        befores.append(_lead_in(rng, piece, is_first=index == 0))
        afters.append(_follow_up(rng, piece, is_last=index == len(pieces) - 1))
        wraps.append(_draw_wrap(rng, piece))
        joined = " " if afters[-1] or wraps[-1] or rng.random() < 0.5 else ", "
        marks.append(rng.choice([joined, joined, ", ", " "]))
    marks[-1] = rng.choice([".", ".", ".", "", "!", "?"])
    people, is_inside = draw_people_style(rng), rng.random() < 0.3
    return Layout(pieces, befores, afters, wraps, marks, people, is_inside)


def _lead_in(rng: Random, piece: Piece, *, is_first: bool) -> str:
    if piece.is_second:
        return rng.choice(_SECOND_CUES.get(piece.role, _CUES[piece.role])) + " "
    words = ""
    if rng.random() < 0.35:
        words = corpus.span(rng, 1, 6) + " "
    choice = rng.random()
    if choice < 0.55:
        words += rng.choice(_CUES[piece.role]) + " "
    elif choice < 0.65 and piece.key:
        words += f"{rng.choice(['the ', ''])}{piece.key.replace('_', ' ')} "
    elif choice < 0.75:
        words += values.word(rng) + " "
    return words[:1].upper() + words[1:] if is_first and rng.random() < 0.8 else words


def _follow_up(rng: Random, piece: Piece, *, is_last: bool) -> str:
    if rng.random() < 0.25 and piece.role in _AFTER_CUES and not is_last:
        cue = rng.choice(_AFTER_CUES[piece.role])
        return cue if cue.startswith("'") else " " + cue
    return " " + corpus.span(rng, 1, 5) if rng.random() < 0.15 else ""


def _draw_wrap(rng: Random, piece: Piece) -> str:
    if piece.role == "year":
        return rng.choices(["()", "[]", ""], [0.45, 0.08, 0.47])[0]
    if piece.role in ("title", "phrase"):
        return rng.choice(_WRAPS) if rng.random() < 0.4 else ""
    return rng.choice(_WRAPS) if rng.random() < 0.1 else ""


def compose(rng: Random, layout: Layout) -> Record:
    """Fill a layout with fresh values."""
    text, fields = "", {}
    for index, piece in enumerate(layout.pieces):
        value = draw_value(rng, piece.kind, layout.people)
        wrap, mark = layout.wraps[index], layout.marks[index]
        if layout.is_mark_inside and wrap and mark[:1] in (",", ".", ";"):
            inner, mark = mark[0], mark[1:]
        else:
            inner = ""
        shown = wrap[:1] + value.text + inner + wrap[1:]
        if value.text.endswith((".", "?", "!")) and mark.startswith("."):
            mark = mark[1:]
        text += layout.befores[index] + shown + layout.afters[index] + mark
        if piece.key:
            fields[piece.key] = value.data
    return Record(text, fields)


def draw_value(rng: Random, kind: str, people: PeopleStyle) -> Value:
    """Draw a value of any kind, people included."""
    return people.draw(rng, kind) if kind in _PEOPLE_KINDS else values.draw(rng, kind)


def _key(rng: Random, kind: str) -> str:
    return rng.choice(KEYS[kind]) if rng.random() < 0.95 else values.word(rng)
