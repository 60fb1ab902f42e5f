"""Nested event loops, for libraries whose sync calls run a loop of their own. Only when asked."""

from __future__ import annotations


def allow_nested_loops() -> None:
    """Let code inside a running event loop, such as a notebook cell, run another one.

    Some libraries call `asyncio.run` inside their sync functions, which a kernel's own loop
    forbids. This patches asyncio for the whole process and cannot be undone; ftmagic itself never
    needs it. nest-asyncio2 is the maintained successor of nest-asyncio, which loses the replies of
    queued cells on ipykernel 7.
    """
    import nest_asyncio2

    nest_asyncio2.apply()
