"""How a passage spells its people: name order, initials, `and`, `et al.`."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ftmagic.local.student.values import Person, Value, person

_FORMS = (
    "{given} {family}|{given} {family}|{first} {family}|{dots} {family}|{dots} {family}"
    "|{family}, {dots}|{family}, {dots}|{family}, {given}|{family} {letters}|{family}|{family}"
    "|{tight} {family}|{family}, {tight}|{letters} {family}|{family}, {first}|{family} {dots}"
).split("|")
_LAST_JOINERS = [" and ", " and ", " & ", ", and ", ", & ", ", ", "; ", " / ", " with "]
_TAILS = [" et al.", " et al.", " et al", ", et al.", " and others", " and colleagues", " & al."]


@dataclass(frozen=True)
class PeopleStyle:
    """One way to write a list of people.

    Args:
        form: The spelling of the first person, with `{given}`, `{family}`, `{dots}` and so on.
        next_form: The spelling of the others.
        comma: What stands between people.
        joiner: What stands before the last one.
        tail: What replaces the others, such as ` et al.`; empty to name everyone.
        is_upper: Whether family names are in capitals.
    """

    form: str
    next_form: str
    comma: str
    joiner: str
    tail: str
    is_upper: bool

    def draw(self, rng: Random, kind: str) -> Value:
        """Draw people and what a field of this kind should hold.

        Args:
            rng: The source of randomness.
            kind: `family` (of the first), `person` (the first as written), `families` or `persons`.
        """
        is_group = kind in ("families", "persons") or (kind == "family" and rng.random() < 0.7)
        people = [person(rng) for _ in range(rng.choice([1, 1, 2, 2, 3, 4]) if is_group else 1)]
        shown = [self._spell(one, self.next_form) for one in people]
        shown[0] = self._spell(people[0], self.form)
        named = people[:1] if self.tail and len(people) > 1 else people
        families = [self._family(one) for one in named]
        data = {"family": families[0], "person": shown[0], "families": families}
        return Value(self._join(shown), data.get(kind, shown[: len(named)]))

    def _spell(self, one: Person, form: str) -> str:
        initials = [name[0] for name in one.given]
        return form.format(
            given=" ".join(one.given),
            first=one.given[0],
            dots=" ".join(f"{letter}." for letter in initials),
            tight="".join(f"{letter}." for letter in initials),
            letters="".join(initials),
            family=self._family(one),
        )

    def _family(self, one: Person) -> str:
        return one.family.upper() if self.is_upper else one.family

    def _join(self, shown: list[str]) -> str:
        if len(shown) == 1:
            return shown[0]
        if self.tail:
            return shown[0] + self.tail
        return self.comma.join(shown[:-1]) + self.joiner + shown[-1]


def draw_people_style(rng: Random) -> PeopleStyle:
    """Draw a way to write people; half of them name everyone."""
    form = rng.choice(_FORMS)
    return PeopleStyle(
        form=form,
        next_form=form if rng.random() < 0.75 else rng.choice(_FORMS),
        comma=rng.choice([", ", ", ", ", ", "; ", " and "]),
        joiner=rng.choice(_LAST_JOINERS),
        tail=rng.choice(_TAILS) if rng.random() < 0.35 else "",
        is_upper=rng.random() < 0.04,
    )
