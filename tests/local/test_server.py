"""The server's door, files, recordings and streaming, driven by the official SDK."""

from __future__ import annotations

import io
import json
import signal
import socket
import stat
import time
from pathlib import Path

import httpx
import openai
import pytest

from ftmagic.local.dialect import ApiError
from ftmagic.local.files import FileStore
from ftmagic.types import Json
from tests.disk import full_disk
from tests.local.conftest import Server, wait_until

ANSWER = "A recorded answer that is long enough to be cut into several pieces."
ROCKY: Json = {"messages": [{"role": "user", "content": "an album like Rocky"}]}


@pytest.fixture(scope="module")
def recording(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recordings") / "key.jsonl"
    reply = {"role": "assistant", "content": ANSWER}
    path.write_text(json.dumps({"model": "gpt", "request": ROCKY, "reply": reply}) + "\n")
    answer = post(server, "/ftmagic/recordings", {"name": "answer-key", "path": str(path)})
    assert answer.json() == {"name": "answer-key", "n_requests": 1}
    return "answer-key"


def post(server: Server, path: str, body: Json, **headers: str) -> httpx.Response:
    root = server.base_url.removesuffix("/v1")
    sent = {"authorization": f"Bearer {server.ready['api_key']}", **headers}
    return httpx.post(root + path, json=body, headers=sent, trust_env=False)


def test_ready_line_and_private_files(server: Server) -> None:
    assert set(server.ready) == {"base_url", "api_key", "pid"}
    assert server.ready["pid"] == server.process.pid
    entry = json.loads((server.home / "server.json").read_text())
    assert entry["base_url"] == server.base_url and entry["started_at"] <= time.time()
    for name in ("server.json", "key"):
        assert stat.S_IMODE((server.home / name).stat().st_mode) == 0o600


def test_wrong_key_is_401(server: Server) -> None:
    with server.client(api_key="ftl-wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
            client.models.list()


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"host": "evil.example:80"}, "loopback"),
        ({"host": "127.0.0.1.evil.example"}, "loopback"),
        ({"origin": "https://evil.example"}, "web pages"),
        ({"origin": "null"}, "web pages"),
    ],
)
def test_foreign_host_and_origin_are_403(server: Server, headers: Json, reason: str) -> None:
    answer = post(server, "/ftmagic/recordings", {}, **headers)
    assert answer.status_code == 403
    assert reason in answer.json()["error"]["message"]


def test_replies_carry_nosniff_and_no_cors(server: Server) -> None:
    answer = post(server, "/v1/nowhere", {}, origin="http://localhost:8888")
    assert answer.status_code == 404
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_body_that_is_not_json_is_400(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.ready['api_key']}"}
    for body in (b"{half", b"[1]", b'{"a": NaN}', b"[" * 100_000):
        url = server.base_url + "/chat/completions"
        answer = httpx.post(url, content=body, headers=headers, trust_env=False)
        assert answer.status_code == 400, body[:10]


def test_too_large_a_body_is_refused(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.ready['api_key']}"}
    url = server.base_url + "/chat/completions"
    body = (b" " * 2**20 for _ in range(66))
    answer = httpx.post(url, content=body, headers=headers, trust_env=False)
    assert answer.status_code == 413


def test_files_are_kept_listed_and_deleted(client: openai.OpenAI) -> None:
    first = client.files.create(file=("../a b.jsonl", b"one\n"), purpose="fine-tune")
    second = client.files.create(file=("b.jsonl", b"two\n"), purpose="batch")
    assert (first.bytes, first.filename, first.status) == (4, "a b.jsonl", "processed")
    listed = [file.id for file in client.files.list()]
    assert listed.index(second.id) < listed.index(first.id)
    assert [file.id for file in client.files.list(limit=1)][: len(listed)] == listed  # by pages
    assert first.id not in [file.id for file in client.files.list(purpose="batch")]
    assert client.files.retrieve(first.id) == first
    assert client.files.content(first.id).text == "one\n"
    assert client.files.delete(first.id).deleted
    with pytest.raises(openai.NotFoundError, match="No such File"):
        client.files.content(first.id)


@pytest.mark.parametrize("file_id", ["..%2F..%2Fkey", "file-..", "file-" + "0" * 24])
def test_file_ids_cannot_leave_the_folder(server: Server, file_id: str) -> None:
    headers = {"Authorization": f"Bearer {server.ready['api_key']}"}
    url = f"{server.base_url}/files/{file_id}/content"
    assert httpx.get(url, headers=headers, trust_env=False).status_code == 404


def test_upload_without_a_known_purpose_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose='poetry'"):
        client.files.create(file=("a", b"x"), purpose="poetry")  # type: ignore[arg-type]


def test_recording_answers_and_misses(client: openai.OpenAI, recording: str) -> None:
    reply = client.chat.completions.create(model=recording, temperature=0.7, **ROCKY)
    assert reply.choices[0].message.content == ANSWER
    other = [{"role": "user", "content": "an album like Rocky II"}]
    with pytest.raises(openai.NotFoundError, match="asks 'an album like Rocky'"):
        client.chat.completions.create(model=recording, messages=other)  # type: ignore[arg-type]


def test_recording_streams(client: openai.OpenAI, recording: str) -> None:
    with client.chat.completions.create(
        model=recording, stream=True, stream_options={"include_usage": True}, **ROCKY
    ) as stream:
        chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert len(deltas) > 3
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)  # nothing was counted


def test_damaged_recording_is_refused_with_its_line(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("{half\n")
    answer = post(server, "/ftmagic/recordings", {"name": "bad", "path": str(path)})
    assert answer.status_code == 400
    assert "line 1: Expecting property name" in answer.json()["error"]["message"]


def test_unknown_model_names_the_closest(client: openai.OpenAI, recording: str) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean 'answer-key'") as caught:
        client.chat.completions.create(model="answer-kye", **ROCKY)
    assert caught.value.code == "model_not_found"
    assert recording in [model.id for model in client.models.list()]
    assert client.models.retrieve(recording).owned_by == "recording"


def test_second_server_on_one_folder_is_refused(server: Server) -> None:
    with pytest.raises(AssertionError, match=f"already served.*pid {server.process.pid}"):
        Server(server.home)


def test_sigterm_cleans_up_and_the_next_server_has_the_same_address(tmp_path: Path) -> None:
    first = Server(tmp_path)
    assert first.stop() == 0
    assert not (tmp_path / "server.json").exists()
    second = Server(tmp_path)
    try:
        assert second.base_url == first.base_url
        assert second.ready["api_key"] == first.ready["api_key"]
    finally:
        second.stop(signal.SIGINT)


def test_last_port_is_left_alone_when_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "port").write_text(str(taken.getsockname()[1]))
        running = Server(tmp_path)
        assert str(taken.getsockname()[1]) not in running.base_url
        running.stop()


def test_killed_server_leaves_no_lock(tmp_path: Path) -> None:
    first = Server(tmp_path)
    first.stop(signal.SIGKILL)
    assert (tmp_path / "server.json").exists()
    second = Server(tmp_path)
    second.stop()


def test_idle_server_stops_itself_but_not_while_asked(tmp_path: Path) -> None:
    running = Server(tmp_path, idle_timeout_s=1)
    with running.client() as client:
        for _ in range(4):
            client.models.list()
            time.sleep(0.5)
    assert running.process.poll() is None
    wait_until(lambda: running.process.poll() is not None, timeout_s=10)
    assert running.process.returncode == 0
    assert not (tmp_path / "server.json").exists()


def test_shutdown_route_stops_the_server(tmp_path: Path) -> None:
    running = Server(tmp_path)
    assert post(running, "/ftmagic/shutdown", {}).json() == {"status": "stopping"}
    assert running.process.wait(timeout=10) == 0


def test_server_without_work_does_not_load_torch(server: Server) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    fresh_home = server.home.parent / "fresh"
    fresh = Server(fresh_home)
    with fresh.client() as client:
        client.files.list()
    loaded = Path(f"/proc/{fresh.process.pid}/maps").read_text()
    fresh.stop()
    assert "libtorch" not in loaded


def test_damaged_files_are_left_out_and_the_others_are_served(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    kept = files.add(io.BytesIO(b"x"), "a", "fine-tune")
    cut = files.add(io.BytesIO(b"x"), "b", "fine-tune")
    (tmp_path / f"{cut['id']}.json").write_text('{"id":')
    assert files.list() == [kept]
    with pytest.raises(ApiError, match="No such File"):
        files.get(cut["id"])


def test_upload_without_room_for_its_entry_leaves_nothing_behind(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    with full_disk(64), pytest.raises(OSError):
        files.add(io.BytesIO(b"x"), "a", "fine-tune")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", ["", "80x", "99999"])
def test_damaged_last_port_is_no_port(tmp_path: Path, left: str) -> None:
    (tmp_path / "port").write_text(left)
    running = Server(tmp_path)
    assert running.base_url.endswith(f":{(tmp_path / 'port').read_text()}/v1")
    running.stop()
