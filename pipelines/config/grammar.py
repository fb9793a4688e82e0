"""The command line's grammar: ``stage=rollout preset=tiny data.batch_size=8 --cfg``."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.config.errors import nearest
from pipelines.config.schema import TRAINING

FLAGS = ("--help", "--cfg", "--dry-run")
_SHORT = {"-h": "--help", "-c": "--cfg"}
_SPARED = {"transcript": "stream.transcript", "reference": "stream.reference", "voice": "stream.voice",
           "model": "stream.model",
           "protocol": "evaluate.protocol", "clips": "evaluate.folder",
           "recipe": "prepare.recipe", "input": "intake.input", "runs": "report.runs"}
_OUT = {"export": "export.out", "report": "report.out"}


@dataclass
class CommandLine:
    """What was asked: flags, the topic of --help or --cfg, and overrides by dotted path (raw text, last one wins)."""

    flags: set[str] = field(default_factory=set)
    topic: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    """The key as the user wrote it, by dotted path."""
    problems: list[str] = field(default_factory=list)


def parse(argv: list[str]) -> CommandLine:
    """Read the arguments after the program's name; mistakes are collected, not raised."""
    line = CommandLine()
    stage = next((a.split("=", 1)[1] for a in reversed(argv) if a.startswith("stage=")), "")
    wants_topic = False
    torn: set[str] = set()
    for argument in argv:
        flag = _SHORT.get(argument, argument)
        if flag in FLAGS:
            line.flags.add(flag)
            wants_topic = flag in ("--help", "--cfg")
        elif argument.startswith("-"):
            line.problems.append(f"unknown option {argument}{nearest(argument, FLAGS)}")
        elif "=" in argument:
            key, value = argument.split("=", 1)
            path = canonical(key.strip(), stage)
            if path not in torn and _of_one_folder(line.overrides.get(path, ""), value):
                torn.add(path)
                line.problems.append(f"{key} is given as {line.overrides[path]} and as {value}: shells write brace "
                                     f"lists out, so put quotes around it, as in {key}='a-{{000..999}}.tar'")
            line.overrides[path], line.spelled[path] = value, key
        elif wants_topic and line.topic is None:
            line.topic = argument
        else:
            line.problems.append(f"cannot read {argument!r}: settings are written key=value, for example stage=rollout")
    return line


def _of_one_folder(first: str, second: str) -> bool:
    """Whether both are tars, different ones, in the same place."""
    places = [value.rpartition("/")[0] for value in (first, second)]
    return first != second and first.endswith(".tar") and second.endswith(".tar") and places[0] == places[1]


def canonical(key: str, stage: str) -> str:
    """The full path of a key that may be written short.

    ``transcript reference voice model clips input runs`` and ``out from`` name what the stage reads and writes,
    ``recipe`` and ``protocol`` how it works; ``teacher.lr`` and ``stage.teacher.lr`` are ``stages.teacher.lr``;
    ``tracking.uri`` is ``callbacks.tracking.uri``.
    """
    if key in _SPARED:
        return _SPARED[key]
    if key == "out":
        return _OUT.get(stage, "stream.out")
    if key == "from":
        return f"{stage if stage in ('export', 'evaluate') else 'stream'}.from_stage"
    first, _, rest = key.partition(".")
    if first == "stage" and rest:
        head = rest.split(".")[0]
        return f"stages.{rest}" if head in TRAINING else rest
    if first == "tracking" and rest:
        return f"callbacks.{key}"
    if first in TRAINING and first != "orchestrator" and rest:
        return f"stages.{key}"
    return key
