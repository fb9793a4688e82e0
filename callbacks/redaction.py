"""Secrets out of what is written: passwords in addresses, values of what is named like a secret, webhooks."""

from __future__ import annotations

import re

HIDDEN = "***"
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s'\"]+(?=@)")
_NAMED = re.compile(
    r"(?i)\b((?:[\w.-]*[_.-])?(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|credentials?)=['\"]?)"
    r"[^\s'\"&,;]+")
_HOOK = re.compile(r"(\balerts\.url=['\"]?|\balerts:\s+url:\s+['\"]?)[^\s'\"]+")
"""On a command line, and in YAML, where the address is the first key of its group."""


def redact(text: str) -> str:
    """``text`` with ``user:password@`` of addresses, what follows ``token=``, ``HF_TOKEN=`` and the like, and the
    address of alerts hidden.

    Works on command lines, YAML, error messages and addresses alike; applied twice it changes nothing more.
    """
    text = _NAMED.sub(lambda m: m[1] + HIDDEN, _IN_ADDRESS.sub(HIDDEN, text))
    return _HOOK.sub(lambda m: m[1] + HIDDEN, text)
