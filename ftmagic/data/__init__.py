"""Real input for the notebooks: works to cite and recorded albums, and recordings made of them.

`citations` makes passages that cite real works, `albums` holds thirteen recorded GPT-4 replies.
Both write recordings: JSON lines `{model, request, reply}` that `ft.serve(recordings=...)` answers
from. Nothing here knows of datasets, training or the network; the standard library is enough.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from ftmagic.errors import DataError, message
from ftmagic.types import Json, canonical_json


def read_rows(name: str) -> list[Json]:
    """Read one of the JSON-lines files beside this module, such as 'references.jsonl'."""
    text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def recording_line(model: str, request: Json, output: Json) -> Json:
    """Make one line of a recording: a request and the chat completion that answers it.

    The answer takes the shape that the request asks for: a call of the forced tool, or of the only
    tool there is, else JSON as the message's content. It carries no `usage`: nothing was counted.

    Args:
        model: The name under which the recording is served.
        request: The chat-completions body as the SDK sends it, without `model` and sampling.
        output: The structured answer.

    Returns:
        `{model, request, reply}`; the reply's ids depend on its content only.

    Raises:
        DataError: Several tools are offered and none is forced.
    """
    text = json.dumps(output, ensure_ascii=False)
    digest = hashlib.blake2b(
        canonical_json([request, output]).encode("utf-8"), digest_size=12
    ).hexdigest()
    answer: Json = {"role": "assistant", "content": text}
    if request.get("tools"):
        function = {"name": _tool_name(request), "arguments": text}
        call = {"id": f"call_{digest}", "type": "function", "function": function}
        answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    reply = {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": answer, "finish_reason": "stop", "logprobs": None}],
    }
    return {"model": model, "request": request, "reply": reply}


def write_lines(path: str | Path, lines: Iterable[Json]) -> int:
    """Write JSON lines and return how many; the folder is made if need be."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps(line, ensure_ascii=False) for line in lines]
    target.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return len(texts)


def _tool_name(request: Json) -> str:
    choice: Any = request.get("tool_choice")
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    names = [tool["function"]["name"] for tool in request["tools"]]
    if len(names) != 1:
        raise DataError(
            message(
                f"the request offers {len(names)} tools and forces none, so the recorded answer "
                "would have to guess.",
                next_step='tool_choice={"type": "function", "function": {"name": ...}}',
            )
        )
    return str(names[0])
