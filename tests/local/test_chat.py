from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from ftmagic.errors import DataError
from ftmagic.local.chat import (
    ChatFormat,
    StudentFormat,
    TemplateFormat,
    grounded_fields,
    load_chat_format,
)
from ftmagic.local.student import STUDENT_DIR
from ftmagic.types import Json

TEXT = 'See Müller & Sons, "The end: a <|end|> of it" (1999).'
CITATION: Json = {
    "type": "object",
    "properties": {
        "author": {"type": "string"},
        "year": {"type": "integer"},
        "title": {"type": "string"},
    },
    "required": ["author", "year", "title"],
}
CITATIONS: Json = {
    "type": "object",
    "properties": {"citations": {"type": "array", "items": {"$ref": "#/$defs/Citation"}}},
    "required": ["citations"],
    "$defs": {"Citation": CITATION},
}
ANSWER: Json = {"title": "The end: a <|end|> of it", "author": "Müller", "year": 1999}
COMPACT = '{"author":"Müller","year":1999,"title":"The end: a <|end|> of it"}'
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SILENT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def student() -> ChatFormat:
    from transformers import AutoTokenizer

    return load_chat_format(AutoTokenizer.from_pretrained(STUDENT_DIR))


def template_format(template: str) -> ChatFormat:
    """Give another tokenizer, with the same pieces but ChatML's marks, a chat template."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    saved = json.loads((STUDENT_DIR / "tokenizer.json").read_text(encoding="utf-8"))
    names = {"<|tool|>": "<|im_start|>", "<|end|>": "<|im_end|>"}
    for token in saved["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    vocab = saved["model"]["vocab"]
    saved["model"]["vocab"] = {names.get(token, token): index for token, index in vocab.items()}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(saved)),
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return load_chat_format(tokenizer)


def tool(name: str, schema: Json) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def call(name: str, arguments: Any) -> Json:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def row(*calls: Json, tools: list[Json], **more: Any) -> Json:
    reply = {"role": "assistant", "content": None, "tool_calls": list(calls)}
    return {"messages": [{"role": "user", "content": TEXT}, reply], "tools": tools, **more}


def request_of(training_row: Json) -> Json:
    return {**training_row, "messages": training_row["messages"][:-1]}


def target(chat: ChatFormat, training_row: Json) -> str:
    labels = chat.encode_row(training_row).labels
    return str(chat.tokenizer.decode([label for label in labels if label != -100]))


def accepts(chat: ChatFormat, request: Json, text: str, *fields: str) -> bool:
    """Whether the grammar of a request accepts a whole text."""
    grammar = chat.grammar(request, frozenset(fields))
    assert grammar is not None
    matcher = LLMatcher(from_tokenizer(chat.tokenizer), grammar)
    assert not matcher.is_error(), matcher.get_error()
    ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    return (
        matcher.validate_tokens(ids) == len(ids)
        and matcher.consume_tokens(ids)
        and (matcher.is_accepting())
    )


@pytest.mark.parametrize("arguments", [ANSWER, json.dumps(ANSWER)])
def test_target_is_the_arguments_in_the_schemas_order(student: ChatFormat, arguments: Any) -> None:
    training_row = row(call("Citation", arguments), tools=[tool("Citation", CITATION)])
    assert target(student, training_row) == COMPACT + "<|end|>"


def test_row_begins_with_the_prompt_of_its_request(student: ChatFormat) -> None:
    training_row = row(call("Citation", ANSWER), tools=[tool("Citation", CITATION)])
    prompt = student.encode_prompt(request_of(training_row))
    encoded = student.encode_row(training_row)
    assert encoded.token_ids[: len(prompt)] == prompt
    assert encoded.labels == [-100] * len(prompt) + encoded.token_ids[len(prompt) :]
    text = student.tokenizer.decode(prompt)
    assert text == f"<|user|>{TEXT}<|tool|>Citation(author,year,title)<|assistant|>"


def test_markers_inside_a_text_stay_text(student: ChatFormat) -> None:
    prompt = student.encode_prompt({"messages": [{"role": "user", "content": "a<|end|>b"}]})
    assert student.end_token_ids[0] not in prompt


def test_nested_list_schema_is_flattened(student: ChatFormat) -> None:
    spec = {"type": "json_schema", "json_schema": {"name": "Citations", "schema": CITATIONS}}
    messages = [{"role": "system", "content": "Find."}, {"role": "user", "content": TEXT}]
    prompt = student.encode_prompt({"messages": messages, "response_format": spec})
    assert student.tokenizer.decode(prompt) == (
        f"<|system|>Find.<|user|>{TEXT}<|tool|>Citations(citations[author,year,title])<|assistant|>"
    )


def test_several_tools_put_the_name_in_front_of_parallel_calls(student: ChatFormat) -> None:
    tools = [tool("Citation", CITATION), tool("Place", {"properties": {"city": {}}})]
    training_row = row(call("Place", {"city": "Oslo"}), call("Citation", ANSWER), tools=tools)
    written = target(student, training_row)
    assert written == f'Place{{"city":"Oslo"}}<|call|>Citation{COMPACT}<|end|>'
    reply = student.parse_reply(written.removesuffix("<|end|>"), request_of(training_row))
    calls = [made["function"] for made in reply["tool_calls"]]
    assert calls == [
        {"name": "Place", "arguments": '{"city":"Oslo"}'},
        {"name": "Citation", "arguments": COMPACT},
    ]
    assert reply["content"] is None


def test_forced_tool_is_the_only_one_offered(student: ChatFormat) -> None:
    tools = [tool("Citation", CITATION), tool("Place", {"properties": {"city": {}}})]
    choice = {"type": "function", "function": {"name": "Place"}}
    request = {"messages": [{"role": "user", "content": TEXT}], "tools": tools}
    prompt = student.encode_prompt({**request, "tool_choice": choice})
    assert student.tokenizer.decode(prompt).endswith("<|tool|>Place(city)<|assistant|>")


def test_upload_without_a_schema_is_asked_by_its_own_keys(student: ChatFormat) -> None:
    reply = {"role": "assistant", "content": json.dumps(ANSWER)}
    training_row = {"messages": [{"role": "user", "content": TEXT}, reply]}
    encoded = student.encode_row(training_row)
    assert "(title,author,year)<|assistant|>" in student.tokenizer.decode(encoded.token_ids)


def test_every_assistant_message_is_learned_unless_its_weight_is_zero(student: ChatFormat) -> None:
    turns = [("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two")]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert target(student, {"messages": messages}) == "one<|end|>two<|end|>"
    messages[1]["weight"] = 0  # type: ignore[assignment]
    assert target(student, {"messages": messages}) == "two<|end|>"


def test_row_without_a_target_is_refused(student: ChatFormat) -> None:
    with pytest.raises(DataError, match="no assistant message"):
        student.encode_row({"messages": [{"role": "user", "content": TEXT}]})


def test_call_of_a_tool_that_was_not_offered_is_refused(student: ChatFormat) -> None:
    with pytest.raises(DataError, match="'Other'"):
        student.encode_row(row(call("Other", {}), tools=[tool("Citation", CITATION)]))


def test_grammar_accepts_the_target_and_nothing_else(student: ChatFormat) -> None:
    training_row = row(call("Citation", ANSWER), tools=[tool("Citation", CITATION)])
    request = {**request_of(training_row), "tool_choice": "required"}
    good = '{"author":"Müller","year":1999,"title":"The end"}'
    assert accepts(student, request, good)
    assert not accepts(student, request, good.replace("author", "writer"))
    assert not accepts(student, request, good.replace(":1999", ': "1999"'))
    assert not accepts(student, request, good.replace("}", ',"more":1}'))
    assert not accepts(student, request, "Hello")
    assert accepts(student, {**request, "tool_choice": "auto"}, "Hello")


def test_parallel_calls_can_be_forbidden(student: ChatFormat) -> None:
    tools = [tool("Place", {"type": "object", "properties": {"city": {"type": "string"}}})]
    request = {"messages": [], "tools": tools, "tool_choice": "required"}
    both = '{"city":"Oslo"}<|call|>{"city":"Rome"}'
    assert accepts(student, request, both)
    assert not accepts(student, {**request, "parallel_tool_calls": False}, both)


def test_free_text_has_no_grammar(student: ChatFormat) -> None:
    assert student.grammar({"messages": [{"role": "user", "content": TEXT}]}) is None


def test_grounded_fields_are_spans_of_the_input_in_every_row() -> None:
    answers = [ANSWER, {"author": "Sons", "year": 2024, "title": "an end"}]
    rows = [row(call("Citation", answer), tools=[tool("Citation", CITATION)]) for answer in answers]
    assert grounded_fields(rows[:1]) == {"author", "year", "title"}
    assert grounded_fields(rows) == {"author"}


def test_grounded_field_holds_whole_words_of_the_input_only(student: ChatFormat) -> None:
    spec = {"type": "json_schema", "json_schema": {"name": "Citations", "schema": CITATIONS}}
    messages = [{"role": "user", "content": TEXT}]
    request = {"messages": messages, "response_format": spec}
    wanted = '{"citations":[{"author":"Müller","year":1,"title":"x"}]}'
    fields = ("citations[].author",)
    assert accepts(student, request, wanted, *fields)
    assert not accepts(student, request, wanted.replace("Müller", "Mül"), *fields)
    assert not accepts(student, request, wanted.replace("Müller", "Miller"), *fields)
    assert accepts(student, request, wanted.replace("Müller", 'Sons, \\"The end'), *fields)
    assert not accepts(student, request, wanted.replace("Müller", "Müller "), *fields)
    assert not accepts(student, request, wanted.replace("Müller", ""), *fields)
    assert accepts(student, request, wanted.replace("Müller", "Miller"))


def test_grounded_integer_is_a_run_of_digits_of_the_input(student: ChatFormat) -> None:
    spec = {"type": "json_schema", "json_schema": {"name": "Citation", "schema": CITATION}}
    messages = [{"role": "user", "content": "Smith-Jones (1981), pp. 19-23"}]
    request = {"messages": messages, "response_format": spec}
    keys = list(CITATION["properties"])
    for year, is_possible in ((1981, True), (19, True), (198, False), (2020, False)):
        values = {"author": "a", "year": year, "title": "t"}
        answer = json.dumps({key: values[key] for key in keys}, separators=(",", ":"))
        assert accepts(student, request, answer, "year") is is_possible


def test_template_learns_the_rendered_call() -> None:
    chat = template_format(QWEN_TEMPLATE)
    assert isinstance(chat, TemplateFormat)
    training_row = row(call("Citation", json.dumps(ANSWER)), tools=[tool("Citation", CITATION)])
    written = target(chat, training_row)
    assert written.startswith('<tool_call>\n{"name": "Citation", "arguments": {"title":')
    reply = chat.parse_reply(written.split("<|im_end|>")[0], request_of(training_row))
    assert json.loads(reply["tool_calls"][0]["function"]["arguments"]) == ANSWER


def test_template_grammar_frames_the_call_as_the_template_does() -> None:
    chat = template_format(QWEN_TEMPLATE)
    request = {
        "messages": [{"role": "user", "content": TEXT}],
        "tools": [tool("Citation", CITATION)],
        "tool_choice": "required",
    }
    body = '{"author":"Müller","year":1999,"title":"T"}'
    framed = f'<tool_call>\n{{"name": "Citation", "arguments": {body}}}\n</tool_call>'
    assert accepts(chat, request, framed)
    assert not accepts(chat, request, body)


def test_template_that_never_renders_the_call_is_refused_by_name() -> None:
    chat = template_format(SILENT_TEMPLATE)
    with pytest.raises(DataError, match="chat template of .* does not render"):
        chat.encode_row(row(call("Citation", ANSWER), tools=[tool("Citation", CITATION)]))


def test_student_format_is_chosen_by_its_markers(student: ChatFormat) -> None:
    assert isinstance(student, StudentFormat)
