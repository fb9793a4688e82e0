"""``--help``: what can be asked for, and every field with type, default and its docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from pipelines.config.compose import read_yaml
from pipelines.config.errors import ConfigError, nearest
from pipelines.config.fields import Field, describe, lookup, type_name
from pipelines.config.places import CONF, choices
from pipelines.config.schema import STAGES, TRAINING, RunConfig

_ABOUT = {
    "prepare": "make the puppet data set, or shards of recordings: recipe= input=",
    "encode": "fit or load the codecs, turn clips into latents",
    "orchestrator": "pretrain the orchestrator and its pointer on speech",
    "teacher": "train the joint audio-video denoiser",
    "dmd": "stage I: distil it to few steps on single chunks",
    "rollout": "stage II: fine-tune the student on its own chunks",
    "evaluate": "held-out measures: report.json, table, index.html; protocol=long, clips=DIR",
    "stream": "speak a transcript: transcript= reference= voice= out= model=",
    "export": "write model.safetensors and config.json: from= out=",
    "inspect": "a page of training items as the model sees them",
}


def print_help(topic: str | None, console: Console) -> None:
    """Print the overview, or the fields of one group (``stage.dmd``, ``data``, ``denoiser.width``).

    Raises:
        ConfigError: for a topic that does not exist.
    """
    if topic is None:
        _overview(console)
        return
    for path in _paths(topic):
        field = lookup(RunConfig, path)
        assert field is not None
        _print_field(path, field, console)


def _overview(console: Console) -> None:
    _say(console, "usage: python pipelines/run.py stage=STAGE [preset=NAME] [key=value ...] [--cfg] [--dry-run] "
                  "[--help TOPIC]")
    _say(console, "")
    for stage in STAGES:
        _say(console, f"  {'stage=' + stage:<20}{_ABOUT[stage]}")
    _say(console, f"  {'stage=all':<20}the chain that the preset needs; complete stages are skipped")
    _say(console, f"  {'stage=sync-tracking':<20}sends MLflow what a server that was away has not got")
    _say(console, f"  {'stage=report':<20}one offline page that compares runs: runs=a,b,c out=")
    _say(console, "")
    for name in choices("preset"):
        about = (read_yaml(CONF / "preset" / f"{name}.yaml", []) or {}).get("about", "")
        _say(console, f"  {'preset=' + name:<20}{about}")
    _say(console, "")
    _print_field("", Field("", RunConfig, None, ""), console)
    _say(console, "")
    _say(console, "--help TOPIC prints the fields of a stage (stage.dmd), a group (data) or a key (data.batch_size);")
    _say(console, "--cfg [GROUP] prints what would run; --dry-run builds the models without memory and prints sizes.")


def _paths(topic: str) -> list[str]:
    """The groups or keys that a topic means: ``stage.X`` is the stage's own group, else what the stage reads."""
    name = topic.removeprefix("stage.").removeprefix("stage=")
    if name in TRAINING and (topic != name or name != "orchestrator"):
        return [path for path in (f"stages.{name}", "trainer") if lookup(RunConfig, path)]
    if topic != name and name in STAGES:
        found = [p for p in ({"encode": ["data", "codec"]}.get(name) or [name]) if lookup(RunConfig, p)]
        return found or ["stage"]
    if lookup(RunConfig, topic):
        return [topic]
    known = [*describe(RunConfig), *(f"stage.{s}" for s in STAGES)]
    raise ConfigError([f"no help on {topic!r}{nearest(topic, known)}; topics are {', '.join(known)}"])


def _print_field(path: str, field: Field, console: Console) -> None:
    """One line per key with type and default, its docstring below."""
    if field.is_group and path:
        console.print(Text(f"{path}: {(inspect.getdoc(field.type) or field.doc).splitlines()[0]}", style="bold"))
    for key, kind, default, doc in _rows(path, field, _default(path)):
        console.print(Text.assemble("  ", (key, "cyan"), f"  {kind}" + (f" = {default}" if default else "")),
                      soft_wrap=True)
        console.print(Padding(Text(doc), (0, 0, 0, 6)))


def _default(path: str) -> Any:
    value: Any = RunConfig()
    for part in path.split(".") if path else ():
        value = getattr(value, part)
    return value


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def _rows(path: str, field: Field, default: Any = None) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and docstring; a group's defaults are those of its place (a critic's, a student's)."""
    if not field.is_group:
        yield path, type_name(field.type), _shown(field.default if default is None else default), field.doc
        return
    prefix = path + "." if path else ""
    values = default if default is not None else field.type()
    for name, inner in describe(field.type).items():
        if not inner.is_group:
            yield prefix + name, type_name(inner.type), _shown(getattr(values, name)), inner.doc
        elif path:
            yield from _rows(prefix + name, inner, getattr(values, name))
        else:
            yield prefix + name + ".", "group", "", inner.doc


def _shown(default: Any) -> str:
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if default != "" else "''"
