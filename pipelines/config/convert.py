"""Values against declared types: exact, with every mistake in words instead of the first as an exception."""

from __future__ import annotations

from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import OmegaConf

from pipelines.config.errors import nearest
from pipelines.config.fields import describe, type_name


class Mismatch(Exception):
    """A value that does not fit; the message says what was expected and what was given."""


def parse_raw(raw: str, annotation: Any) -> Any:
    """A command-line value as YAML, except that text stays text where the field takes text (``name=007``)."""
    if _takes(annotation, str) and not raw.startswith(("[", "{")):
        return None if raw == "null" and _takes(annotation, type(None)) else raw
    if raw == "":
        return "" if annotation is Any else None
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={raw}"]), resolve=False)["value"]  # type: ignore
    except Exception:  # not YAML: leave it to the type check to say so
        return raw


def convert(value: Any, annotation: Any) -> Any:
    """``value`` as ``annotation``.

    Raises:
        Mismatch: if it does not fit without losing something (1.5 as an integer, "yes" as a number).
    """
    origin = get_origin(annotation)
    if annotation is Any:
        return value
    if origin in (Union, UnionType):
        return _union(value, annotation)
    if origin is Literal:
        if value in get_args(annotation):
            return value
        allowed = [str(a) for a in get_args(annotation)]
        raise Mismatch(f"expected one of {', '.join(allowed)}, got {value!r}{nearest(str(value), allowed)}")
    if origin in (list, tuple):
        return _sequence(value, annotation, origin)
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(value, annotation)
        key_type, value_type = get_args(annotation)
        return {convert(k, key_type): convert(v, value_type) for k, v in value.items()}
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        names = {str(member.value): member for member in annotation}
        if str(value) in names:
            return names[str(value)]
        raise Mismatch(f"expected one of {', '.join(names)}, got {value!r}{nearest(str(value), names)}")
    if isinstance(annotation, type) and is_dataclass(annotation) and isinstance(value, dict):
        known = describe(annotation)
        for key in value:
            if key not in known:
                raise Mismatch(f"unknown key {key}{nearest(str(key), known)}")
        return annotation(**{k: convert(v, known[k].type) for k, v in value.items()})
    return _scalar(value, annotation)


def _scalar(value: Any, annotation: Any) -> Any:
    if annotation in (bool, list, dict) and isinstance(value, annotation):
        return value
    if annotation is type(None) and value is None:
        return None
    if value is None or isinstance(value, bool | list | dict):
        raise _mismatch(value, annotation)
    if annotation in (str, Path):
        return annotation(str(value))
    if annotation in (int, float):
        return _number(value, annotation)
    raise _mismatch(value, annotation)


def _number(value: Any, annotation: Any) -> int | float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _mismatch(value, annotation) from None
    if annotation is float:
        return number
    if not number.is_integer():
        raise _mismatch(value, annotation)
    return value if isinstance(value, int) else int(number)


def _sequence(value: Any, annotation: Any, origin: type) -> Any:
    if not isinstance(value, list | tuple):
        raise _mismatch(value, annotation)
    inner = get_args(annotation) or (Any,)
    if origin is list or (len(inner) == 2 and inner[1] is Ellipsis):
        return origin(convert(item, inner[0]) for item in value)
    if len(inner) != len(value):
        raise Mismatch(f"expected {len(inner)} values, got {len(value)}: {value!r}")
    return tuple(convert(item, kind) for item, kind in zip(value, inner, strict=True))


def _union(value: Any, annotation: Any) -> Any:
    kinds = get_args(annotation)
    if value is None and type(None) in kinds:
        return None
    exact = [k for k in kinds if isinstance(k, type) and type(value) is k]
    for kind in [*exact, *(k for k in kinds if k is not type(None) and k not in exact)]:
        try:
            return convert(value, kind)
        except Mismatch:
            continue
    raise _mismatch(value, annotation)


def _takes(annotation: Any, kind: type) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(_takes(a, kind) for a in get_args(annotation))
    if get_origin(annotation) is Literal:
        return any(isinstance(a, kind) for a in get_args(annotation))
    return annotation is kind or (kind is str and annotation is Path)


def _mismatch(value: Any, annotation: Any) -> Mismatch:
    return Mismatch(f"expected {type_name(annotation)}, got {value!r}")
