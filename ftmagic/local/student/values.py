"""Random typed values for pretraining tasks: names, titles, dates, amounts, codes.

Every value is drawn from a `random.Random`, so a seed fixes it. Nothing is read from a data set:
words come from the standard library's docstrings, names from syllables and a short list.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from ftmagic.local.student import corpus

_GIVEN = (
    "James Mary John Linda Robert Susan Michael Karen David Nancy William Lisa Richard Betty "
    "Joseph Helen Thomas Carlos Daniel Carol Paul Ruth Mark Donald Laura George Sarah Kim Steven "
    "Amy Edward Anna Brian Maria Ronald Emma Olga Kevin Nina Yuki Jeff Wei Gary Priya Ivan Fatima "
    "Omar Ines Hugo Chloe Liam Aisha Noah Elena Lucas Sofia Jean Pierre Hans Jürgen Søren José"
).split()
_FAMILY = (
    "Smith Johnson Brown Jones Garcia Miller Davis Wilson Moore Taylor Anderson Thomas Jackson "
    "White Harris Martin Thompson Clark Lewis Lee Walker Hall Allen Young King Wright Lopez Hill "
    "Scott Green Adams Baker Nelson Carter Mitchell Perez Roberts Turner Phillips Campbell Parker "
    "Evans Edwards Collins Stewart Morris Rogers Reed Cook Morgan Bell Murphy Bailey Cooper Wang "
    "Li Zhang Kim Nguyen Tanaka Suzuki Müller Weber Rossi Novak Silva Ivanov Petrov Khan Singh"
).split()
_ONSETS = (
    "b br c ch cl cr d dr f fl fr g gl gr h j k kh kr l m n p ph pl pr qu r s sc sh sk sl sm sn "
    "sp st str t th tr ts v vl w wh x y z zh"
).split() + ["", ""]
_VOWELS = "a e i o u a e i o ai ea ee ie io oa oo ou au ei ue y".split()
_CODAS = [""] * 9 + (
    "n r l s t m d k x z ng nd rt st ck ll ss th nt rd ff ch tz sch rk lm ns v".split()
)
_ENDINGS = (
    "son man sen berg er ski ov ova ez i a o ini ing ton ley ura moto escu opoulos ic".split()
)
_PARTICLES = "van|de|von|van der|de la|Le|La|Di|Da|du|ter|El|van den|dos|Mac|Ben".split("|")
_ACCENTED = {
    "a": "áàäâãåă", "e": "éèëêěę", "i": "íïî", "o": "óöôõøő", "u": "úüûů",
    "c": "çćč", "n": "ñń", "s": "šśş", "z": "žż", "l": "ł", "y": "ý", "g": "ğ",
}  # fmt: skip
_FUNCTION_WORDS = (
    "the of and to in a is for on with by at from as that it was are be this an or not were which "
    "has their its after before into over under between during when where while also but more"
).split()
_MONTHS = (
    "January February March April May June July August September October November December"
).split()
_SMALL_WORDS = frozenset("a an and as at by for from in of on or the to via with".split())


class Value(NamedTuple):
    """One value as the passage spells it and as the JSON holds it."""

    text: str
    data: Any


class Person(NamedTuple):
    """A person's given names and family name."""

    given: tuple[str, ...]
    family: str


def pseudo_word(rng: Random, n_syllables: int | None = None) -> str:
    """Make up a lower-case word of 1 to 3 syllables."""
    n_syllables = n_syllables or rng.choice([1, 2, 2, 2, 3, 3])
    parts = (
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(n_syllables)
    )
    return "".join(parts)


def pseudo_name(rng: Random) -> str:
    """Make up a capitalised name."""
    word = pseudo_word(rng, rng.choice([1, 1, 2, 2, 3]))
    if rng.random() < 0.3:
        word = pseudo_word(rng, 1) + rng.choice(_ENDINGS)
    if rng.random() < 0.15:
        word = _accent(rng, word)
    return word[:1].upper() + word[1:]


def person(rng: Random) -> Person:
    """Draw a person with one or two given names."""
    given = [rng.choice(_GIVEN) if rng.random() < 0.6 else pseudo_name(rng)]
    if rng.random() < 0.4:
        given.append(rng.choice(_GIVEN) if rng.random() < 0.6 else pseudo_name(rng))
    if rng.random() < 0.08:
        given[0] += "-" + rng.choice(_GIVEN)
    return Person(tuple(given), family_name(rng))


def family_name(rng: Random) -> str:
    """Draw a family name; some have hyphens, particles, accents or an inner capital."""
    name = rng.choice(_FAMILY) if rng.random() < 0.3 else pseudo_name(rng)
    form = rng.random()
    if form < 0.07:
        return name + "-" + pseudo_name(rng)
    if form < 0.14:
        return rng.choice(_PARTICLES) + " " + name
    if form < 0.17:
        return rng.choice(["O'", "Mc", "D'", "Mac", "al-", "De"]) + name
    return name


def word(rng: Random) -> str:
    """Draw a lower-case word, mostly a real one."""
    choice = rng.random()
    if choice < 0.15:
        return rng.choice(_FUNCTION_WORDS)
    return pseudo_word(rng) if choice < 0.25 else rng.choice(corpus.vocabulary())


def title(rng: Random) -> str:
    """Draw a work's title: 1 to 16 words, sentence or title case, some with a subtitle."""
    text = _title_words(rng)
    if rng.random() < 0.22:
        joiner = rng.choice([": ", ": ", ": ", " - ", ", ", "? ", " : ", ". "])
        text += joiner + _recase(rng, corpus.span(rng, 2, 8))
    if rng.random() < 0.12:
        text = rng.choice(["On ", "The ", "A ", "An ", "Towards ", "Why ", "How "]) + text
    if rng.random() < 0.1:
        text += " " + rng.choice(["in", "with", "for", "using", "of"]) + " " + _proper(rng)
    if rng.random() < 0.06:
        text = f"{rng.choice([word, pseudo_word, pseudo_name])(rng)}: {text}"
    if rng.random() < 0.05:
        text += rng.choice(["?", "!", " (" + word(rng) + ")", " " + str(rng.randint(2, 99))])
    return text


def venue(rng: Random) -> str:
    """Draw the name of a journal, conference, publisher or site."""
    topic = " ".join(word(rng).capitalize() for _ in range(rng.choice([1, 1, 2, 2, 3])))
    if rng.random() < 0.25:
        topic += rng.choice([" and ", " & "]) + word(rng).capitalize()
    body = rng.choice(
        "Journal|Annals|Review|Bulletin|Archives|Transactions|Proceedings|Letters|Advances|Studies"
        "|Handbook|Conference|Symposium|Workshop|Studies|Lecture Notes|Quarterly".split("|")
    )
    form = rng.random()
    if form < 0.4:
        return f"{_venue_prefix(rng)}{body} {rng.choice(['of', 'of', 'on', 'in'])} {topic}"
    if form < 0.6:
        return f"{topic} {body}"
    if form < 0.8:
        return f"{_proper(rng)} {rng.choice(['Press', 'University Press', 'Publishing', 'Verlag'])}"
    return topic


def organisation(rng: Random) -> str:
    """Draw the name of a company, school or bank."""
    tail = rng.choice(
        " Inc| Labs| Ltd| Group| Corp| Systems| Foods| Media|| & Co| University| Bank| Partners"
        "| Institute| & Sons| GmbH| College| Trust".split("|")
    )
    head = _proper(rng)
    return f"University of {head}" if rng.random() < 0.08 else head + tail


def place(rng: Random) -> str:
    """Draw the name of a town or street."""
    name = pseudo_name(rng)
    tail = rng.choice(["City", "Beach", "Valley", "Street", "Park", "Road", "upon " + name])
    known = rng.choice("Paris London Tokyo Berlin Madrid Boston Oslo Lima Cairo Delhi".split())
    return rng.choice([name, name, "New " + name, f"{name} {tail}", known])


def phrase(rng: Random) -> str:
    """Draw one to eight words of prose."""
    return corpus.span(rng, 1, 8)


def date(rng: Random) -> str:
    """Draw a calendar date in one of several spellings."""
    year, month, day = rng.randint(1985, 2029), rng.randint(1, 12), rng.randint(1, 28)
    name = _MONTHS[month - 1]
    forms = [f"{year}-{month:02d}-{day:02d}"] * 3
    forms += [f"{name} {day}, {year}", f"{day} {name} {year}", f"{month:02d}/{day:02d}/{year}"]
    forms += [f"{name} {year}", f"{day:02d}.{month:02d}.{year}", f"{name[:3]} {day}"]
    return rng.choice(forms)


def code(rng: Random) -> str:
    """Draw an identifier of letters and digits, such as `KLM-4821`."""
    pattern = rng.choice(["AAA-0000", "AA000", "000-000", "#00000", "A-00000", "AAA00-AA", "00A0"])
    tables = {"A": string.ascii_uppercase, "0": string.digits}
    return "".join(rng.choice(tables[mark]) if mark in tables else mark for mark in pattern)


def url(rng: Random) -> str:
    """Draw a web address."""
    site = f"{pseudo_word(rng)}.{rng.choice(['com', 'org', 'net', 'io', 'edu'])}"
    return f"{rng.choice(['https://', 'http://www.', 'www.', ''])}{site}/{word(rng)}"


def locator(rng: Random) -> str:
    """Draw a volume, issue or page range, such as `12(3), 45-67`."""
    first = rng.randint(1, 900)
    pages = f"{first}{rng.choice(['-', '–', '--'])}{first + rng.randint(1, 60)}"
    volume, issue = rng.randint(1, 120), rng.randint(1, 12)
    forms = [f"{volume}({issue}), {pages}", f"vol. {volume}, no. {issue}", f"pp. {pages}"]
    forms += [f"{volume}:{pages}", f"{volume} ({issue}): {pages}", pages, f"{volume}, {pages}"]
    return rng.choice([*forms, f"p. {first}", f"ch. {issue}", f"{issue}th ed."])


_TEXT_KINDS: dict[str, Callable[[Random], str]] = {
    "organisation": organisation,
    "place": place,
    "title": title,
    "venue": venue,
    "phrase": phrase,
    "date": date,
    "code": code,
    "url": url,
    "locator": locator,
    "email": lambda rng: f"{pseudo_word(rng)}{rng.choice(['', '.x', '7'])}@{pseudo_word(rng)}.com",
    "phone": lambda rng: f"{rng.randint(200, 999)}-{rng.randint(100, 999)}-{rng.randint(0, 9999)}",
    "word": word,
}


def draw(rng: Random, kind: str) -> Value:
    """Draw a value of a kind that is not a person.

    Args:
        rng: The source of randomness.
        kind: `year`, `count`, `amount` or a text kind (`title`, `place`, `code`, ...).
    """
    if kind == "year":
        return _year(rng)
    if kind == "count":
        count = rng.choice([rng.randint(1, 20), rng.randint(1, 200), rng.randint(1, 9999)])
        return Value(f"{count:,}" if rng.random() < 0.1 else str(count), count)
    if kind == "amount":
        amount = round(rng.uniform(1, rng.choice([99, 2000, 50000])), rng.choice([1, 2, 2]))
        return Value(str(amount), amount)
    text = _TEXT_KINDS[kind](rng)
    return Value(text, text)


def _year(rng: Random) -> Value:
    """Draw a year; a few stand inside a date."""
    year = rng.randint(1900, 2030) if rng.random() < 0.4 else rng.randint(1970, 2026)
    month = rng.choice(_MONTHS)
    dates = [f"{month} {year}", f"{month[:3]}. {year}", f"{rng.randint(1, 28)} {month} {year}"]
    return Value(rng.choice(dates) if rng.random() < 0.08 else str(year), year)


def _title_words(rng: Random) -> str:
    if rng.random() < 0.6:
        return _recase(rng, corpus.span(rng, 2, 14))
    words = [word(rng) for _ in range(rng.randint(1, 10))]
    if rng.random() < 0.2:
        words[0] = rng.choice([pseudo_name(rng), pseudo_word(rng, 1).upper()])
    if rng.random() < 0.15:
        words[-1] = f"{word(rng)}-{words[-1]}"
    return _recase(rng, " ".join(words))


def _recase(rng: Random, text: str) -> str:
    if rng.random() < 0.5:
        words = [part if part in _SMALL_WORDS else part[:1].upper() + part[1:] for part in
                 text.split(" ")]  # fmt: skip
        text = " ".join(words)
    return text[:1].upper() + text[1:] if rng.random() < 0.92 else text


def _proper(rng: Random) -> str:
    return rng.choice([pseudo_name, pseudo_name, family_name, place])(rng)


def _venue_prefix(rng: Random) -> str:
    return rng.choice([""] * 4 + ["The ", "International ", "European ", "American ", "Annual "])


def _accent(rng: Random, text: str) -> str:
    places = [index for index, letter in enumerate(text) if letter in _ACCENTED]
    if not places:
        return text
    index = rng.choice(places)
    return text[:index] + rng.choice(_ACCENTED[text[index]]) + text[index + 1 :]
