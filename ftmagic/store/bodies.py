"""JSON bodies on disk: compressed, and equal ones stored once.

Message lists, tools and schemas repeat from call to call; each is one row of `bodies`, found by
its hash. A long system prompt inside a message list is taken out and stored once, too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from functools import lru_cache
from typing import Any

LONG_TEXT = 256
"""Characters from which a system prompt is stored apart from its message list."""

_LEVEL = 6
_CACHED_BYTES = 16_384


def put(connection: sqlite3.Connection, value: Any) -> int:
    """Store a JSON value once and return its body id. Key order is kept."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    data = text.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=16).digest()
    row = connection.execute("select id from bodies where hash = ?", (digest,)).fetchone()
    if row is not None:
        return int(row[0])
    cursor = connection.execute(
        "insert into bodies (hash, body) values (?, ?)", (digest, zlib.compress(data, _LEVEL))
    )
    return int(cursor.lastrowid or 0)


def put_optional(connection: sqlite3.Connection, value: Any) -> int | None:
    """Store a value, or nothing for None and empty containers."""
    return put(connection, value) if value else None


def put_messages(connection: sqlite3.Connection, messages: list[Any]) -> int:
    """Store a message list; long system prompts become bodies of their own."""
    apart: dict[str, int] = {}
    kept: list[Any] = []
    for index, each in enumerate(messages):
        if _is_long_system_prompt(each):
            apart[str(index)] = put(connection, each["content"])
            each = {**each, "content": None}
        kept.append(each)
    return put(connection, {"messages": kept, "apart": apart})


def get(connection: sqlite3.Connection, body_id: int | None) -> Any:
    """Read a value back; None for no body."""
    if body_id is None:
        return None
    row = connection.execute("select body from bodies where id = ?", (body_id,)).fetchone()
    return _decode_shared(row[0])


def get_messages(connection: sqlite3.Connection, body_id: int) -> list[Any]:
    """Read a message list back, whole."""
    packed = get(connection, body_id)
    messages: list[Any] = packed["messages"]
    for index, apart_id in packed["apart"].items():
        messages[int(index)] = {**messages[int(index)], "content": get(connection, apart_id)}
    return messages


def decode(data: bytes) -> Any:
    """Decompress and parse what `encode` made."""
    return json.loads(_text(data))


def encode(value: Any) -> bytes:
    """Compress a JSON value that is not shared between rows."""
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), _LEVEL)


def delete_unused(connection: sqlite3.Connection) -> int:
    """Delete the bodies that no row points at any more, and return their number."""
    connection.execute("create temp table if not exists used_bodies (id integer primary key)")
    connection.execute("delete from used_bodies")
    for table, column in _REFERENCES:
        connection.execute(
            f"insert or ignore into used_bodies select {column} from {table} "
            f"where {column} is not null"
        )
    for (data,) in connection.execute(
        "select body from bodies where id in "
        "(select messages_id from calls union select messages_id from revisions)"
    ).fetchall():
        connection.executemany(
            "insert or ignore into used_bodies values (?)",
            [(apart_id,) for apart_id in decode(data)["apart"].values()],
        )
    cursor = connection.execute("delete from bodies where id not in (select id from used_bodies)")
    return cursor.rowcount


_REFERENCES = (
    *(("calls", f"{name}_id") for name in ("request", "messages", "tools", "format", "reply")),
    ("schemas", "body_id"),
    *(
        ("revisions", f"{name}_id")
        for name in ("messages", "answer", "settings", "tools", "format")
    ),
)


def _is_long_system_prompt(each: Any) -> bool:
    return (
        isinstance(each, dict)
        and each.get("role") in ("system", "developer")
        and isinstance(each.get("content"), str)
        and len(each["content"]) >= LONG_TEXT
    )


def _decode_shared(data: bytes) -> Any:
    # Parsed anew each time: the caller owns what it gets.
    text = _cached_text(data) if len(data) < _CACHED_BYTES else _text(data)
    return json.loads(text)


def _text(data: bytes) -> str:
    return zlib.decompress(data).decode("utf-8", "surrogatepass")


_cached_text = lru_cache(maxsize=256)(_text)
