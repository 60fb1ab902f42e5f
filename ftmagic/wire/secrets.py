"""What a key looks like: a short list of prefixes, to be read and judged in one sitting.

It answers one question: does this text show a credential, of which kind, and where. It never
returns, logs or shows the credential. It cannot know keys without a telling shape, such as bare
passwords. Each rule runs only where its marker occurs, which is one fast search a rule.

Source: the formats that the issuers publish, as gitleaks (`config/gitleaks.toml`) collects them.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Finding(NamedTuple):
    """Where a credential stands in a text, without the credential.

    Attributes:
        kind: Whose key it is, as 'openai' or 'private key'.
        start: First character.
        end: One past the last character.
    """

    kind: str
    start: int
    end: int


_WORD = r"[A-Za-z0-9_-]"
_RULES: tuple[tuple[str, str, str], ...] = (
    # kind, marker that must occur, pattern
    ("anthropic", "sk-ant-", rf"sk-ant-{_WORD}{{20,}}"),
    ("openrouter", "sk-or-", r"sk-or-v1-[0-9a-f]{64}"),
    (
        "openai",
        "sk-",
        rf"sk-(?!ant-|or-)(?:(?:proj|svcacct|admin)-{_WORD}{{20,}}|[A-Za-z0-9]{{32,}})",
    ),
    ("groq", "gsk_", r"gsk_[A-Za-z0-9]{40,}"),
    ("hugging face", "hf_", r"hf_[A-Za-z0-9]{30,}"),
    ("replicate", "r8_", r"r8_[A-Za-z0-9]{37}"),
    ("aws", "A", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    ("google api", "AIza", rf"AIza{_WORD}{{35}}"),
    ("google oauth", "ya29.", rf"ya29\.{_WORD}{{20,}}"),
    ("azure storage", "AccountKey=", r"AccountKey=[A-Za-z0-9+/]{80,}={0,2}"),
    ("github", "gh", r"gh[pousr]_[A-Za-z0-9]{36,}"),
    ("github", "github_pat_", r"github_pat_[A-Za-z0-9_]{36,}"),
    ("gitlab", "glpat-", rf"glpat-{_WORD}{{20,}}"),
    ("slack", "xox", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("slack webhook", "hooks.slack.com", r"hooks\.slack\.com/\w+/[A-Za-z0-9+/]{30,}"),
    ("stripe", "k_", r"[rs]k_(?:live|test|prod)_[A-Za-z0-9]{16,}"),
    ("sendgrid", "SG.", rf"SG\.{_WORD}{{22}}\.{_WORD}{{43}}"),
    ("npm", "npm_", r"npm_[A-Za-z0-9]{36}"),
    ("pypi", "pypi-", rf"pypi-{_WORD}{{50,}}"),
    ("databricks", "dapi", r"dapi[0-9a-f]{32}"),
    ("digitalocean", "_v1_", r"do[opr]_v1_[0-9a-f]{64}"),
    ("telegram", ":AA", rf"\d{{8,10}}:AA{_WORD}{{33}}"),
    ("json web token", "eyJ", rf"eyJ{_WORD}{{10,}}\.eyJ{_WORD}{{10,}}\.{_WORD}{{10,}}"),
    ("private key", "PRIVATE KEY", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    ("password in a url", "://", r"://[^\s:/@\"'<>\\]{0,64}:[^\s/@\"'<>\\]{3,}@"),
)

_COMPILED = tuple((kind, marker, re.compile(rule)) for kind, marker, rule in _RULES)

# Before a key stands no letter or digit, unless it ends an escape of JSON text: \n, \u0022.
_BEFORE = re.compile(r"(?:^|[^A-Za-z0-9]|\\[nrtbf]|\\u[0-9a-fA-F]{4})\Z")


def find_secrets(text: str) -> list[Finding]:
    """Find credentials in a text.

    Args:
        text: Plain text, or a JSON body as it was sent.

    Returns:
        Kind and place of each, in the order of the text, none overlapping.
    """
    found: list[Finding] = []
    for kind, marker, rule in _COMPILED:
        if marker in text:
            for match in rule.finditer(text):
                start, end = match.span()
                if not text[start].isalnum() or _BEFORE.search(text[max(0, start - 6) : start]):
                    found.append(Finding(kind, start, end))
    found.sort(key=lambda finding: finding.start)
    return [
        finding
        for finding, before in zip(found, [None, *found], strict=False)
        if before is None or finding.start >= before.end
    ]
