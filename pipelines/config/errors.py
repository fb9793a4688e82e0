"""Configuration errors, all at once."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from streamchar.errors import InputError


class ConfigError(InputError):
    """Everything that is wrong with a configuration, one line per problem."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        count = len(self.problems)
        head = f"{count} configuration error{'s' if count > 1 else ''}:"
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean ...?)`` for the known word that looks most like ``word``, else an empty string."""
    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""
