"""Replace a method of a class so that it can be put back exactly.

Owns the one rule of politeness: whoever wrapped the method after us keeps their wrapper, ours
then stays underneath it, retired, and only calls on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Patch:
    """One replaced method.

    Attributes:
        owner: The class.
        original: The function that was there, the very object.
        is_active: False once it was undone: the wrapper must then only call `original`.
    """

    def __init__(self, owner: type, name: str, make: Callable[[Patch], Any]) -> None:
        """Replace `owner.name`.

        Args:
            owner: The class.
            name: The method's name; `owner` itself must define it.
            make: Called with this patch, whose `original` is set; returns the wrapper.
        """
        self.owner = owner
        self._name = name
        self.original = vars(owner)[name]
        self.is_active = True
        self._wrapper = make(self)
        setattr(owner, name, self._wrapper)

    @property
    def is_in_place(self) -> bool:
        """Whether the class still holds our wrapper itself."""
        return vars(self.owner).get(self._name) is self._wrapper

    def undo(self) -> None:
        """Retire the wrapper, and put the original back unless somebody wrapped ours."""
        self.is_active = False
        if self.is_in_place:
            setattr(self.owner, self._name, self.original)
