"""The shape of the store, as an append-only list of migrations.

A migration that has been released is never edited: a new need is a new entry at the end. The
number of migrations applied is SQLite's `user_version`.
"""

from __future__ import annotations

import sqlite3

from ftmagic.errors import StoreError, message

_FIRST = """
create table bodies (
  id integer primary key,
  hash blob not null unique,          -- blake2b-128 of the text, so equal bodies are stored once
  body blob not null                  -- zlib of JSON
);

create table datasets (
  id integer primary key,
  name text not null unique,
  created_at real not null
);

create table runs (
  id text primary key,
  dataset_id integer not null references datasets on delete cascade,
  cell text not null,                 -- identity of the capturing cell; '' outside notebooks
  number integer not null,            -- 1 for the first run of that cell into that dataset
  notebook text not null,
  split text,                         -- what --split said; null leaves it to the split
  started_at real not null,
  ended_at real,
  status text not null default 'open' -- open, ok, error, interrupted
) without rowid;
create index runs_by_cell on runs (dataset_id, cell, number);

create table calls (
  position integer primary key,       -- order of arrival within the store
  id text not null unique,
  run_id text not null references runs on delete cascade,
  api text not null,
  url text not null,
  model text not null,
  library text not null,
  request_key blob not null,          -- of messages, tools, tool_choice, response_format
  request_id integer not null references bodies,
  messages_id integer references bodies,
  tools_id integer references bodies,
  format_id integer references bodies,
  reply_id integer references bodies,
  status integer not null,
  outcome text not null,
  error text not null,
  skipped text not null,              -- why no example was made; '' when one was
  started_at real not null,
  latency_s real not null,
  is_stream integer not null,
  is_ambient integer not null,
  attempt integer not null,
  n_tokens integer
);
create index calls_by_run on calls (run_id, position);
create index calls_by_request on calls (request_key);

create table tags (
  call_id text not null references calls (id) on delete cascade,
  key text not null,
  value text not null,
  primary key (call_id, key)
) without rowid;
create index tags_by_value on tags (key, value);

create table schemas (
  id integer primary key,
  dataset_id integer not null references datasets on delete cascade,
  hash text not null,                 -- types.OutputSchema.hash
  name text not null,
  kind text not null,
  is_strict integer not null,
  version integer not null,           -- 1, 2, ... for each name within the dataset
  body_id integer not null references bodies,
  unique (dataset_id, hash)
);

create table examples (
  id integer primary key,
  dataset_id integer not null references datasets on delete cascade,
  run_id text references runs,        -- null for imported rows
  call_id text references calls (id) on delete set null,
  content_key text not null,
  input_key text not null,
  schema_id integer references schemas,
  revision_id integer,                -- the current one
  review text not null default 'pending',
  split text,
  source text not null default '',    -- tag 'source': rows that share it share a split
  tags text not null default '{}',    -- JSON, as of the call; stays when the call is erased
  is_valid integer not null,
  model text not null,
  n_tokens integer,
  created_at real not null,
  superseded_by text                  -- the run that replaced it
);
create unique index examples_by_content on examples (dataset_id, content_key)
  where superseded_by is null;
create index examples_by_review on examples (dataset_id, review, id) where superseded_by is null;
create index examples_by_split on examples (dataset_id, split, id) where superseded_by is null;
create index examples_by_call on examples (call_id);

create table sightings (              -- a run saw this example, as a new one or as a duplicate
  run_id text not null references runs on delete cascade,
  example_id integer not null references examples on delete cascade,
  primary key (run_id, example_id)
) without rowid;
create index sightings_by_example on sightings (example_id);

create table revisions (
  id integer primary key,
  example_id integer not null references examples on delete cascade,
  number integer not null,            -- 0 as captured
  parent_id integer references revisions,
  messages_id integer not null references bodies,
  answer_id integer not null references bodies,
  settings_id integer not null references bodies,
  tools_id integer references bodies,
  format_id integer references bodies,
  problems text not null,             -- JSON list; [] when valid
  author text not null,
  created_at real not null,
  unique (example_id, number)
);

create table reviews (
  id integer primary key,
  action text not null,               -- one bulk decision shares one action and is undone as one
  example_id integer not null references examples on delete cascade,
  revision_id integer references revisions,
  state text not null,
  previous text not null,
  reviewer text not null,
  created_at real not null
);
create index reviews_by_action on reviews (action);
create index reviews_by_example on reviews (example_id);

create table jobs (
  id text primary key,                -- the engine's job id, or 'intent-...' until it answers
  engine text not null,
  dataset_id integer references datasets on delete set null,
  host text not null,
  base_url text not null,
  content_hash text not null,         -- of the training files and the spec
  spec text not null,
  info text,
  example_ids blob not null,          -- zlib of JSON [[example id, revision number], ...]
  is_promoted integer not null default 0,
  created_at real not null
) without rowid;
create index jobs_by_hash on jobs (engine, content_hash);
create unique index jobs_promoted on jobs (dataset_id) where is_promoted;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST,)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring a database to the newest shape, one transaction a migration.

    Raises:
        StoreError: The file was written by a newer ftmagic; it is left as it is.
    """
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise StoreError(
            message(
                f"the store {path} has format {version}; this ftmagic knows up to "
                f"{len(MIGRATIONS)}. Nothing was changed.",
                next_step="%pip install --upgrade ftmagic",
            )
        )
    while version < len(MIGRATIONS):
        _apply_next(connection)
        version = _version(connection)


def _apply_next(connection: sqlite3.Connection) -> None:
    connection.execute("begin immediate")
    try:
        version = _version(connection)  # another kernel may have been quicker
        if version < len(MIGRATIONS):
            for statement in MIGRATIONS[version].split(";\n"):
                connection.execute(statement)
            connection.execute(f"pragma user_version = {version + 1}")
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma user_version").fetchone()[0])
