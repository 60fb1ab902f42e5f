"""Where an engine's server is, and which key may be sent there.

A key belongs to a host: `OPENAI_API_KEY` goes to OpenAI, to the host of `OPENAI_BASE_URL` and to
this machine, and nowhere else. Any other host has a variable of its own. Nothing here connects.
"""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from ftmagic.errors import ConfigError, message

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
OPENAI_URL_VARIABLE = "OPENAI_BASE_URL"


def host_of(base_url: str) -> str:
    """Return the host name of an address, in lower case, without its port."""
    return (urlsplit(base_url).hostname or "").lower()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by name or by number."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def resolve_base_url(base_url: str | None) -> str:
    """Return the address to use: the one given, else `OPENAI_BASE_URL`, else OpenAI's own.

    Raises:
        ConfigError: It is no http(s) address, carries credentials, or is plain http to another
            machine.
    """
    url = (base_url or os.environ.get(OPENAI_URL_VARIABLE) or OPENAI_URL).strip().rstrip("/")
    parts = urlsplit(url)
    host = host_of(url)
    shown = f"{parts.scheme}://{host or '?'}"
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            message(
                f"{shown!r} is not an address of a server: it needs https:// and a host.",
                next_step=f"ft.train('NAME', engine='openai', base_url={OPENAI_URL!r})",
            )
        )
    if parts.username or parts.password:
        raise ConfigError(
            message(
                f"the address of {host} carries a user name or password; keys come from the "
                "environment.",
                next_step=f"os.environ[{key_variable(url)!r}] = getpass.getpass()",
            )
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(
            message(
                f"{shown} would send rows and key unencrypted; plain http is for this machine "
                "only.",
                next_step=f"ft.train('NAME', engine='openai', base_url='https://{host}/v1')",
            )
        )
    return url


def key_variable(base_url: str) -> str:
    """Name the environment variable whose key may be sent to this address.

    `OPENAI_API_KEY` for OpenAI, for the host of `OPENAI_BASE_URL` and for this machine, else
    `FTMAGIC_KEY_` and the host: an address in a shared store cannot draw OpenAI's key to it.
    """
    host = host_of(base_url)
    from_environment = host_of(os.environ.get(OPENAI_URL_VARIABLE, ""))
    if is_loopback(host) or host in (host_of(OPENAI_URL), from_environment):
        return OPENAI_KEY
    return "FTMAGIC_KEY_" + re.sub(r"[^A-Z0-9]+", "_", host.upper())


def require_key(base_url: str) -> str:
    """Return the key for an address.

    Raises:
        ConfigError: Its environment variable is not set.
    """
    variable = key_variable(base_url)
    key = os.environ.get(variable, "")
    if not key:
        bound = "" if variable == OPENAI_KEY else f" ({OPENAI_KEY} is sent to OpenAI only)"
        raise ConfigError(
            message(
                f"no key for {host_of(base_url)}: the environment variable {variable} is not "
                f"set{bound}.",
                next_step=f"import os, getpass; os.environ[{variable!r}] = getpass.getpass()",
            )
        )
    return key
