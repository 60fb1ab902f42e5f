import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from ftmagic.data import recording_line
from ftmagic.data.albums import recorded_albums, write_recording
from ftmagic.data.citation_styles import LIST_STYLES, SEEN_STYLES, UNSEEN_STYLES, Dice
from ftmagic.data.citations import Kind, Passage, passages, write_answer_key
from ftmagic.data.works import Work, is_same_work, works
from ftmagic.errors import DataError, UnknownNameError
from ftmagic.types import Json

KINDS = get_args(Kind)
BALTAGI = Work(
    ("Baltagi",), False, 1981, "Simultaneous Equations With Error Components", "Econometrica"
)


class Citation(BaseModel):
    author: str
    year: int
    title: str


class Citations(BaseModel):
    citations: list[Citation]


def request(passage: Passage) -> Json:
    output_class: type[BaseModel] = Citations if passage.is_list else Citation
    return {
        "messages": [{"role": "user", "content": passage.text}],
        "tools": [openai.pydantic_function_tool(output_class)],
        "tool_choice": {"type": "function", "function": {"name": output_class.__name__}},
    }


def all_passages() -> list[Passage]:
    return [passage for kind in KINDS for passage in passages(kind)]


def test_every_answer_is_printed_verbatim_and_in_order() -> None:
    for passage in all_passages():
        positions = []
        for citation in passage.citations:
            assert re.search(rf"\b{re.escape(citation.author)}\b", passage.text), passage
            assert re.search(rf"\b{citation.year}\b", passage.text), passage
            positions.append(passage.text.index(citation.title))
        assert positions == sorted(positions), passage


def test_the_sets_have_the_promised_sizes_and_lengths() -> None:
    sizes = {kind: len(passages(kind)) for kind in KINDS}
    assert sizes == {"train": 84, "seen": 40, "unseen": 42, "lists": 24}
    assert sum(passage.is_list for passage in passages("train")) == 20
    assert all(passage.is_list for passage in passages("lists"))
    assert not any(p.is_list for p in [*passages("seen"), *passages("unseen")])
    assert {len(p.citations) for p in passages("lists")} == {1, 2, 3}
    for passage in all_passages():
        assert 40 <= len(passage.text.split()) <= 110, passage


def test_unseen_styles_are_never_trained_on_and_the_others_are() -> None:
    trained = {passage.style for passage in passages("train")}
    assert trained == {style.__name__ for style in SEEN_STYLES}
    assert {passage.style for passage in passages("seen")} == trained
    assert {p.style for p in passages("lists")} == {style.__name__ for style in LIST_STYLES}
    assert {style.__name__ for style in LIST_STYLES} <= trained
    assert {p.style for p in passages("unseen")} == {s.__name__ for s in UNSEEN_STYLES}
    assert (
        len(trained) >= 8 and len(UNSEEN_STYLES) >= 4 and not set(UNSEEN_STYLES) & set(SEEN_STYLES)
    )


def test_no_work_is_cited_in_two_passages() -> None:
    by_title = {work.title: work for work in works()}
    cited = [by_title[c.title] for passage in all_passages() for c in passage.citations]
    assert len(cited) == len(set(cited))
    for index, work in enumerate(cited):
        assert not any(is_same_work(work, other) for other in cited[index + 1 :]), work


def test_no_sentence_around_a_citation_is_trained_and_tested() -> None:
    def prose(kind: Kind) -> set[str]:
        text = " ".join(passage.text for passage in passages(kind))
        return {s for s in re.findall(r"[A-Z][a-z ,']+\.", text) if len(s.split()) > 6}

    tested = prose("seen") | prose("unseen") | prose("lists")
    assert tested and not prose("train") & tested


def test_passages_are_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from ftmagic.data.citations import passages;"
        "print(hashlib.sha256(repr(passages('train')).encode()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = hashlib.sha256(repr(passages("train")).encode()).hexdigest()
    assert done.stdout.strip() == here


def test_each_style_prints_a_known_work_as_its_manual_says() -> None:
    first = {style.__name__: style(BALTAGI, Dice("a")) for style in (*SEEN_STYLES, *UNSEEN_STYLES)}
    title = re.escape(BALTAGI.title)
    patterns = {
        "apa": rf"Baltagi, [A-Z]\. [A-Z]\. \(1981\)\. {title}\. Econometrica, \d+\(\d\), \d+-\d+\.",
        "mla": rf'Baltagi, \w+\. "{title}\." Econometrica, vol\. \d+, 1981, pp\. \d+-\d+\.',
        "vancouver": rf"Baltagi [A-Z]{{2}}\. {title}\. Econometrica\. 1981;\d+\(\d\):\d+-\d+\.",
        "nature": rf"Baltagi, [A-Z]\. [A-Z]\. {title}\. Econometrica \d+, \d+-\d+ \(1981\)\.",
        "chicago_author_date": rf'Baltagi, \w+\. 1981\. "{title}\." Econometrica \d+ \(\d\): .*',
        "table_row": rf"1981 \| Baltagi \| {title} \| Econometrica",
    }
    for name, pattern in patterns.items():
        assert re.fullmatch(pattern, first[name]), first[name]
    assert len(set(first.values())) == 17


def test_editions_and_replications_are_one_work_and_namesakes_are_not() -> None:
    second_edition = Work(("Baltagi",), False, 2005, BALTAGI.title.lower(), "Wiley")
    other = Work(("Baltagi",), False, 1981, "Pooling Under Misspecification", "Econometrica")
    assert is_same_work(BALTAGI, second_edition)
    assert not is_same_work(BALTAGI, other)


def test_works_are_cleaned() -> None:
    for work in works():
        assert " :" not in work.title and "&amp;" not in work.title and "Ł" not in work.title
        assert work.title == work.title.strip() and not work.title.endswith((".", ",", ";"))
        assert work.authors[0] != "Team" and "others" not in work.authors
        assert 1900 < work.year < 2025
    assert 330 < len(works()) < 360


def test_answer_key_holds_the_requests_the_sdk_sends(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "answer-key.jsonl"
    assert write_answer_key(path, request) == 190
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    passage, line = passages("train")[0], lines[0]
    assert line["model"] == "answer-key"
    assert line["request"] == json.loads(json.dumps(request(passage)))
    for line in lines:
        reply = ChatCompletion.model_validate(line["reply"])
        calls: Any = reply.choices[0].message.tool_calls
        classes: dict[str, type[BaseModel]] = {"Citation": Citation, "Citations": Citations}
        output_class = classes[calls[0].function.name]
        output_class.model_validate_json(calls[0].function.arguments)


def test_a_response_format_is_answered_with_content() -> None:
    line = recording_line(
        "m", {"messages": [], "response_format": {"type": "json_object"}}, {"a": 1}
    )
    assert line["reply"]["choices"][0]["message"] == {"role": "assistant", "content": '{"a": 1}'}


def test_several_tools_without_a_choice_are_refused() -> None:
    tools = [openai.pydantic_function_tool(Citation), openai.pydantic_function_tool(Citations)]
    with pytest.raises(DataError, match=r"offers 2 tools and forces none[\s\S]*Next: tool_choice"):
        recording_line("m", {"messages": [], "tools": tools}, {})


def test_unknown_set_is_refused_with_the_closest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"'unsen'; did you mean 'unseen'"):
        passages("unsen")  # type: ignore[arg-type]


def test_the_thirteen_albums_make_a_recording(tmp_path: Path) -> None:
    def ask(movie_name: str) -> Json:
        return {"messages": [{"role": "user", "content": movie_name}]}

    assert write_recording(tmp_path / "albums.jsonl", ask) == 13
    first = json.loads((tmp_path / "albums.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["model"] == "recorded-gpt-4"
    assert json.loads(first["reply"]["choices"][0]["message"]["content"])["name"] == "The Shining"
    assert sum(len(row.album["songs"]) for row in recorded_albums()) > 60
