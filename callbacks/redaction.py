"""Secrets out of what is written: passwords in addresses, values of what is named like a secret, webhooks."""

from __future__ import annotations

import re

HIDDEN = "***"
_WORD = r"(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
_NAME = rf"(?<![\w.-])(?:[\w.-]*[_.-])?{_WORD}"
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s'\"]+(?=@)")
_NAMED = re.compile(rf"(?i)({_NAME}=['\"]?)[^\s'\"&,;]+")
_HOOK = re.compile(r"(\balerts\.url=['\"]?|\balerts:\s+url:\s+['\"]?)[^\s'\"]+")
"""On a command line, and in YAML, where the address is the first key of its group."""
_HOOK_ADDRESS = re.compile(r"(https://(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/)[^\s'\"<>)]+")
_SHAPE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|sk-[\w-]{20,}"
    r"|xox[a-z]-[\w-]{10,}|A[KS]IA[0-9A-Z]{16}|AIza[\w-]{35}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})")
"""What gives itself away by its own form: keys of Hugging Face, GitHub, GitLab, OpenAI, Slack, AWS and Google, JWTs."""
_BEARER = re.compile(r"(?i)(\bauthorization\b['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|token)\s+)[^\s'\"]+")
_PEM = re.compile(
    r"(-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----).*?(-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)", re.DOTALL)
_LITERAL = re.compile(rf"(?i)({_NAME}['\"]?\]?\s*(?:[:=]|:\s*str\s*=)\s*[rbf]?)(['\"])(?!\2)[^\n]*?\2")
_BARE = re.compile(
    rf"(?i)({_NAME}['\"]?:[ \t]+|{_NAME}[ \t]+=[ \t]+)(?!(?:int|float)\b)[\w./+=-]*\d[\w./+=-]*(?=\s|$)")
"""In YAML and shell: a value without quotes that holds a digit."""


def redact(text: str) -> str:
    """``text`` with ``user:password@`` of addresses, what follows ``token=``, ``HF_TOKEN=`` and the like, the address
    of alerts, private keys and what has the form of a known service's key hidden.

    Works on command lines, YAML, error messages and addresses alike; applied twice it changes nothing more.
    """
    text = _NAMED.sub(lambda m: m[1] + HIDDEN, _IN_ADDRESS.sub(HIDDEN, text))
    for pattern in (_HOOK, _HOOK_ADDRESS, _BEARER):
        text = pattern.sub(lambda m: m[1] + HIDDEN, text)
    return _PEM.sub(lambda m: f"{m[1]}{HIDDEN}{m[2]}", _SHAPE.sub(HIDDEN, text))


def redact_code(text: str) -> str:
    """The same in source text, where what is named like a secret may also be a literal: ``api_key = "..."``,
    ``"password": "..."``, ``password: ...1``."""
    text = _LITERAL.sub(lambda m: f"{m[1]}{m[2]}{HIDDEN}{m[2]}", redact(text))
    return _BARE.sub(lambda m: m[1] + HIDDEN, text)
