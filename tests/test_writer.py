from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftmagic.errors import StoreError
from ftmagic.writer import Work, Writer


class Shelf:
    """Keeps what it is given; some items it never takes, and while it is full it takes none."""

    def __init__(self, *never: int) -> None:
        self.kept: list[int] = []
        self.never = set(never)
        self.is_full = False

    def write(self, items: Sequence[Any]) -> None:
        if self.is_full:
            raise StoreError("the shelf is full.")
        if self.never & set(items):
            raise ValueError("does not fit")
        self.kept += items


def put_all(writer: Writer, shelf: Shelf, items: Sequence[int]) -> None:
    for item in items:
        writer.put(Work(shelf, item, 1))


def test_only_what_can_never_be_stored_is_lost_and_the_order_stays() -> None:
    writer, shelf = Writer(), Shelf(3, 7)
    put_all(writer, shelf, range(20))
    assert writer.flush(5) == "NOT STORED: 2 records are lost: ValueError: does not fit."
    assert shelf.kept == [item for item in range(20) if item not in (3, 7)]


def test_loss_is_said_once_and_stays_said_until_then() -> None:
    writer, shelf = Writer(), Shelf(1)
    put_all(writer, shelf, [1])
    put_all(writer, shelf, [2])
    assert "1 record is lost: ValueError: does not fit." in writer.flush(5)
    assert writer.flush(5) == ""


def test_what_the_disk_refuses_waits_and_is_stored_with_the_next_work() -> None:
    writer, shelf = Writer(), Shelf()
    shelf.is_full = True
    put_all(writer, shelf, [1, 2])
    assert writer.flush(5).startswith("NOT STORED: 2 calls wait in memory")
    shelf.is_full = False
    put_all(writer, shelf, [3])
    assert writer.flush(5) == ""
    assert shelf.kept == [1, 2, 3]
