"""What a configuration dataclass says of itself: fields, types, defaults and the docstring under every field."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, NamedTuple, get_type_hints


class Field(NamedTuple):
    """One key of the configuration."""

    name: str
    type: Any
    default: Any
    doc: str

    @property
    def is_group(self) -> bool:
        """True where the key holds further keys."""
        return isinstance(self.type, type) and is_dataclass(self.type)


@cache
def describe(group: type) -> dict[str, Field]:
    """Fields of a configuration dataclass by name, inherited ones first."""
    hints = get_type_hints(group)
    docs: dict[str, str] = {}
    for base in reversed(group.__mro__):
        if is_dataclass(base):
            docs.update(_docstrings(base))
    return {f.name: Field(f.name, hints[f.name], _default(f), docs.get(f.name, "")) for f in fields(group)}


def lookup(group: type, path: str) -> Field | None:
    """The field at a dotted path below ``group``; None where there is none."""
    found: Field | None = None
    at: Any = group
    for part in path.split("."):
        if not (isinstance(at, type) and is_dataclass(at)):
            return None
        found = describe(at).get(part)
        if found is None:
            return None
        at = found.type
    return found


def leaves(group: type, prefix: str = "") -> dict[str, Field]:
    """All fields below ``group`` that hold a value, by dotted path."""
    found: dict[str, Field] = {}
    for name, field in describe(group).items():
        path = prefix + name
        found.update(leaves(field.type, path + ".") if field.is_group else {path: field})
    return found


def type_name(annotation: Any) -> str:
    """A type as a user reads it: ``list[str] | None``, ``'a' | 'b'``."""
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and not getattr(annotation, "__args__", None):
        return annotation.__name__
    text = str(annotation).replace("typing.", "").replace("NoneType", "null").replace("None", "null")
    if text.startswith("Literal["):
        return text[len("Literal["):-1].replace(", ", " | ")
    return text


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _docstrings(group: type) -> dict[str, str]:
    """The string that follows each field in the class body."""
    body = ast.parse(textwrap.dedent(inspect.getsource(group))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                and isinstance(following.value.value, str)):
            docs[statement.target.id] = inspect.cleandoc(following.value.value).replace("\n", " ")
    return docs
