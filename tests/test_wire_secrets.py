from __future__ import annotations

import json
import time

import pytest

from ftmagic.wire.secrets import Finding, find_secrets

B64 = "Ab3dEf6hIj9lMn2pQr5tUv8xYz1" * 4
HEX = "0123456789abcdef" * 4

# Put together here, so that scanners of this repository find no key in it.
SAMPLES = [
    ("openai", "sk-" + B64[:48]),
    ("openai", "sk-" + "proj-" + B64[:60] + "_-"),
    ("anthropic", "sk-" + "ant-api03-" + B64[:80]),
    ("openrouter", "sk-" + "or-v1-" + HEX),
    ("groq", "gsk" + "_" + B64[:52]),
    ("hugging face", "hf" + "_" + B64[:34]),
    ("replicate", "r8" + "_" + B64[:37]),
    ("aws", "AK" + "IA" + "ABCDEFGH234567AB"),
    ("google api", "AI" + "za" + B64[:35]),
    ("google oauth", "ya29" + "." + B64[:40]),
    ("azure storage", "Account" + "Key=" + B64[:86] + "=="),
    ("github", "gh" + "p_" + B64[:36]),
    ("github", "github" + "_pat_" + B64[:82]),
    ("gitlab", "gl" + "pat-" + B64[:20]),
    ("slack", "xo" + "xb-1234567890-" + B64[:24]),
    ("slack webhook", "hooks.slack" + ".com/services/T0AAAAAAA/B0AAAAAAA/" + B64[:24]),
    ("stripe", "sk" + "_live_" + B64[:24]),
    ("stripe", "rk" + "_test_" + B64[:24]),
    ("sendgrid", "SG" + "." + B64[:22] + "." + B64[:43]),
    ("npm", "npm" + "_" + B64[:36]),
    ("pypi", "py" + "pi-AgEIcHlwaS5vcmc" + B64[:60]),
    ("databricks", "da" + "pi" + HEX[:32]),
    ("digitalocean", "dop" + "_v1_" + HEX),
    ("telegram", "1234567890" + ":AA" + B64[:33]),
    ("json web token", "ey" + f"J{B64[:20]}.eyJ{B64[:20]}.{B64[:43]}"),
    ("private key", "-----BEGIN RSA " + "PRIVATE KEY-----"),
    ("private key", "-----BEGIN " + "PRIVATE KEY-----"),
    ("password in a url", "://" + "admin:hunter22@"),
    ("password in a url", "://" + ":hunter22@"),
]


@pytest.mark.parametrize(("kind", "secret"), SAMPLES)
def test_a_key_is_found_in_text_and_in_json(kind: str, secret: str) -> None:
    text = f"my key: {secret}" if "://" not in secret else f"postgres{secret}db.example/x"
    start = text.index(secret)
    assert find_secrets(text) == [Finding(kind, start, start + len(secret))]
    lead = "postgres" if "://" in secret else ""
    body = json.dumps({"messages": [{"content": f"line\n{lead}{secret}\nline é{lead}{secret} "}]})
    found = find_secrets(body)
    assert [finding.kind for finding in found] == [kind, kind]
    assert [body[finding.start : finding.end] for finding in found] == [secret, secret]


def test_findings_do_not_show_the_secret() -> None:
    kind, secret = SAMPLES[0]
    assert repr(find_secrets(secret)) == f"[Finding(kind='{kind}', start=0, end=51)]"


def test_findings_come_in_the_order_of_the_text() -> None:
    text = " ".join(f"x{secret}" if "://" in secret else secret for _, secret in SAMPLES[::-1])
    assert [finding.kind for finding in find_secrets(text)] == [kind for kind, _ in SAMPLES[::-1]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ask-" + B64[:48],
        "task-list sk-learn sk-1234 sk-proj-short",
        "https://example.com/a?b=c:d@e and mailto:me@example.com",
        "https://example.com:8080/@user",
        "ratio 3://4 and C://windows",
        "-----BEGIN PUBLIC KEY-----",
        "eyJhbGciOiJIUzI1NiJ9 alone",
        "AKIAIOSFODNN7EXAMPLELONGER",
        '{"arguments": "{\\"title\\": \\"The Dark Side of the Moon\\"}"}',
    ],
)
def test_ordinary_text_is_not_flagged(text: str) -> None:
    assert find_secrets(text) == []


@pytest.mark.parametrize("text", ["sk-" * 50_000, "://" + ":" * 100_000, "eyJ" + "a.eyJ" * 30_000])
def test_hostile_text_takes_no_more_than_a_moment(text: str) -> None:
    started = time.thread_time()
    find_secrets(text)
    assert time.thread_time() - started < 1.0
