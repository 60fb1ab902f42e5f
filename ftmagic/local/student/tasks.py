"""Random extraction tasks for pretraining: a passage, a schema and the record to write.

No sentence template of any later use is written here. A passage is put together from pieces (names,
a title, a year, values that nobody asks for) by a layout that is itself drawn at random: the order
of the pieces, the marks between them, quotes and brackets around them, how names are spelled, the
words that introduce a value. Few layouts are seen twice, so the student has to learn to read one.

A task is a training row in the OpenAI chat shape, so pretraining and fine-tuning share one path.
"""

from __future__ import annotations

from random import Random
from typing import Any

from ftmagic.local.schema import compact_json
from ftmagic.local.student import corpus, values
from ftmagic.local.student.layouts import KEYS, compose, draw_layout, draw_value, relayout
from ftmagic.local.student.people import draw_people_style
from ftmagic.types import Json

STAGES = 4
"""Curriculum: 0 one-field copy, 1 several fields, 2 single records, 3 everything."""

_INSTRUCTIONS = (
    "|||Extract the {name} from the text.|Text:|Read this and fill in the {name}.|{name}?"
    "|Find the fields {fields}.|Return JSON.|What are {fields}?|Please extract the data below."
).split("|")
_LIST_NAMES = "items records results entries citations references list works found rows".split()
_NUMBERING = ["", "", "", "", "{}. ", "[{}] ", "({}) ", "- ", "* ", "• ", "{}) "]
_CHOICES = (
    "low medium high|open closed pending|red green blue|yes no maybe|new used refurbished"
    "|billing technical account shipping|urgent normal|positive negative neutral"
    "|draft review final|bug feature question"
).split("|")


def sample_task(rng: Random, stage: int) -> Json:
    """Draw one training row.

    Args:
        rng: The source of randomness.
        stage: The curriculum stage, 0 to `STAGES - 1`.

    Returns:
        `{messages, tools, tool_choice}` or `{messages, response_format}`.
    """
    if stage == 0:
        return _as_row(rng, *_copy_task(rng, 1))
    if stage == 1 or rng.random() < 0.06:
        return _as_row(rng, *_copy_task(rng, rng.randint(2, 5)))
    choice = rng.random()
    if stage == 2 or choice < 0.62:
        return _as_row(rng, *_record_task(rng))
    if choice < 0.92:
        return _as_row(rng, *_list_task(rng))
    return _tools_row(rng)


def _copy_task(rng: Random, n_fields: int) -> tuple[str, Json]:
    kinds = ("title", "phrase", "code", "count", "organisation", "venue", "person", "family")
    fields: Json = {}
    lines = []
    style = draw_people_style(rng)
    for _ in range(n_fields):
        key = values.word(rng)
        value = draw_value(rng, rng.choice(kinds), style)
        if key not in fields:
            fields[key] = value.data
            lines.append(f"{key}{rng.choice([': ', ' ', ' = ', ' is '])}{value.text}")
    rng.shuffle(lines)
    return rng.choice(["\n", ". ", ", ", " | "]).join(lines), fields


def _record_task(rng: Random) -> tuple[str, Json]:
    record = compose(rng, draw_layout(rng))
    text, fields = record.text, dict(record.fields)
    if rng.random() < 0.08:
        text, fields = _with_choice(rng, text, fields)
    if rng.random() < 0.05:
        text, fields = _with_flag(rng, text, fields)
    number = rng.choice(_NUMBERING).format(rng.randint(1, 99)) if rng.random() < 0.25 else ""
    return _embed(rng, number + text, chance=0.55), _shuffled(rng, fields)


def _list_task(rng: Random) -> tuple[str, Json]:
    layout = draw_layout(rng, max_pieces=5)
    n_records = rng.choice([1, 2, 2, 3, 3])
    records = [compose(rng, layout) for _ in range(n_records)]
    if rng.random() < 0.25:
        records = [compose(rng, relayout(rng, layout)) for _ in records]
    keys = _shuffled(rng, records[0].fields)
    text = _join_records(rng, [record.text for record in records])
    items = [{key: record.fields[key] for key in keys} for record in records]
    return text, {rng.choice(_LIST_NAMES): items}


def _join_records(rng: Random, texts: list[str]) -> str:
    numbering = rng.choice(_NUMBERING)
    if numbering or rng.random() < 0.4:
        lines = [numbering.format(index + 1) + text for index, text in enumerate(texts)]
        return _embed(rng, rng.choice(["\n", "\n", "\n\n", " "]).join(lines), chance=0.2)
    if rng.random() < 0.4:
        return _embed(rng, rng.choice(["; ", " ", " and ", ", "]).join(texts), chance=0.5)
    return " ".join(_embed(rng, text, chance=0.35) for text in texts)


def _with_choice(rng: Random, text: str, fields: Json) -> tuple[str, Json]:
    """Add a field whose value is one of a few words, named in the passage."""
    options = rng.choice(_CHOICES).split()
    value = rng.choice(options)
    hint = f"{rng.choice(['Status', 'It is', 'Marked as', 'Type', 'Level:'])} {value}."
    key = rng.choice(KEYS["word"])
    return rng.choice([f"{text} {hint}", f"{hint} {text}"]), {**fields, key: Choice(value, options)}


def _with_flag(rng: Random, text: str, fields: Json) -> tuple[str, Json]:
    """Add a field that is true or false."""
    key = rng.choice("paid active shipped member verified urgent available".split())
    is_true = rng.random() < 0.5
    hint = rng.choice([key, f"is {key}", f"{key}: yes"] if is_true else
                      [f"not {key}", f"is not {key}", f"{key}: no"])  # fmt: skip
    return f"{text} {hint[:1].upper()}{hint[1:]}.", {**fields, key: is_true}


class Choice(str):
    """An enum's value that remembers its options, so that the schema can list them."""

    options: list[str]

    def __new__(cls, value: str, options: list[str]) -> Choice:
        """Keep the options beside the value."""
        choice = super().__new__(cls, value)
        choice.options = options
        return choice


def _embed(rng: Random, text: str, chance: float = 0.3) -> str:
    """Put sentences of prose before or after a passage."""
    before = [_filler(rng) for _ in range(rng.choice([1, 1, 2]))] if rng.random() < chance else []
    after = [_filler(rng) for _ in range(rng.choice([1, 1, 2]))] if rng.random() < chance else []
    gap = "\n" if "\n" in text or rng.random() < 0.2 else " "
    return gap.join(part for part in (" ".join(before), text, " ".join(after)) if part)


def _filler(rng: Random) -> str:
    """Draw a sentence that nobody asks about; half of them hold names, years or numbers."""
    sentence = rng.choice(corpus.sentences())
    if rng.random() < 0.5:
        sentence = corpus.span(rng, 2, 10) + "."
    if rng.random() < 0.5:
        sentence = _distracted(rng, sentence.rstrip("."))
    return sentence[:1].upper() + sentence[1:] if rng.random() < 0.85 else sentence


def _distracted(rng: Random, sentence: str) -> str:
    kinds = ["place", "date", "year", "year", "year", "count", "count", "amount", "venue"]
    kind = rng.choice([*kinds, "person", "person", "person", "family"])
    extra = draw_value(rng, kind, draw_people_style(rng)).text
    preposition = rng.choice("in by for and to with from since until after of".split())
    if rng.random() < 0.3:
        opener = rng.choice("In|Since|For|With|Before|After|Thanks to|By|From|To".split("|"))
        return f"{opener} {extra}{rng.choice([',', '', ''])} {sentence[:1].lower()}{sentence[1:]}."
    if rng.random() < 0.2:
        return f"{rng.choice(['', '', 'Mr ', 'Ms ', 'Dr ', 'Professor '])}{extra} {sentence}."
    words = sentence.split(" ")
    position = rng.randint(1, len(words))
    words.insert(position, f"{preposition} {extra}")
    return " ".join(words) + rng.choice([".", ".", ".", "!", "?"])


def _shuffled(rng: Random, fields: Json) -> Json:
    return {key: fields[key] for key in rng.sample(list(fields), len(fields))}


def _as_row(rng: Random, text: str, fields: Json) -> Json:
    """Ask for one record, by a forced tool or by a response format."""
    name = _schema_name(rng)
    schema = _schema_of(fields)
    messages = _prompt_messages(rng, text, name, fields)
    body = compact_json(fields)
    if rng.random() < 0.5:
        spec = {"name": name, "schema": schema}
        messages.append({"role": "assistant", "content": body})
        response_format = {"type": "json_schema", "json_schema": spec}
        return {"messages": messages, "response_format": response_format}
    messages.append({"role": "assistant", "tool_calls": [_call(name, body)]})
    return {"messages": messages, "tools": [_tool(name, schema)]}


def _tools_row(rng: Random) -> Json:
    """Offer two tools; the passage fits one of them, or both in turn."""
    passages = [_record_task(rng), _record_task(rng)]
    names = [f"{_schema_name(rng)}{suffix}" for suffix in ("", "_" + values.word(rng))]
    rng.shuffle(names)
    tools = [
        _tool(name, _schema_of(fields)) for name, (_, fields) in zip(names, passages, strict=True)
    ]
    chosen = rng.choice([[0], [1], [0, 1]])
    calls = [_call(names[index], compact_json(passages[index][1])) for index in chosen]
    text = "\n".join(passages[index][0] for index in chosen)
    messages: list[Json] = [{"role": "user", "content": text}]
    messages.append({"role": "assistant", "tool_calls": calls})
    return {"messages": messages, "tools": rng.sample(tools, 2)}


def _prompt_messages(rng: Random, text: str, name: str, fields: Json) -> list[Json]:
    instruction = rng.choice(_INSTRUCTIONS).format(name=name, fields=", ".join(fields))
    if instruction and rng.random() < 0.4:
        system: Json = {"role": "system", "content": instruction}
        return [system, {"role": "user", "content": text}]
    if instruction and rng.random() < 0.8:
        text = instruction + rng.choice(["\n", " ", "\n\n"]) + text
    elif instruction:
        text = text + "\n" + instruction
    return [{"role": "user", "content": text}]


def _schema_name(rng: Random) -> str:
    word = rng.choice(["record", "extract", values.word(rng), values.word(rng)])
    form = rng.random()
    if form < 0.4:
        return word.capitalize()
    return word if form < 0.7 else f"{rng.choice(['save', 'get', 'add', 'extract'])}_{word}"


def _tool(name: str, schema: Json) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def _call(name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": "call_0", "type": "function", "function": function}


def _schema_of(value: Any) -> Json:
    if isinstance(value, dict):
        properties = {key: _schema_of(item) for key, item in value.items()}
        return {"type": "object", "properties": properties, "required": list(value)}
    if isinstance(value, list):
        return {"type": "array", "items": _schema_of(value[0]) if value else {}}
    if isinstance(value, Choice):
        return {"type": "string", "enum": value.options}
    kinds = {bool: "boolean", int: "integer", float: "number"}
    return {"type": kinds.get(type(value), "string")}
