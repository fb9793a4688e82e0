"""Secrets out of what is written: passwords in addresses, and values of what is named like a secret."""

from __future__ import annotations

import re

HIDDEN = "***"
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s'\"]+(?=@)")
_NAMED = re.compile(
    r"(?i)\b((?:[\w.-]*[_.-])?(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|credentials?)=['\"]?)"
    r"[^\s'\"&,;]+")


def redact(text: str) -> str:
    """``text`` with ``user:password@`` of addresses and what follows ``token=``, ``HF_TOKEN=`` and the like hidden.

    Works on command lines, YAML, error messages and addresses alike; applied twice it changes nothing more.
    """
    return _NAMED.sub(lambda m: m[1] + HIDDEN, _IN_ADDRESS.sub(HIDDEN, text))
