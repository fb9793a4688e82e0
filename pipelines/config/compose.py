"""From files and command line to one checked :class:`RunConfig`: defaults < preset < debug < groups < overrides."""

from __future__ import annotations

import copy
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from callbacks.redaction import redact
from pipelines.config.checks import cross_check
from pipelines.config.convert import Mismatch, convert, parse_raw
from pipelines.config.errors import ConfigError, nearest
from pipelines.config.fields import describe, leaves, lookup
from pipelines.config.grammar import CommandLine
from pipelines.config.paths import anchor_paths
from pipelines.config.places import CHECKOUT, CONF, choices
from pipelines.config.schema import RunConfig

_FILE_KEYS = ("about", "extends")  # what a preset says of itself


def compose(line: CommandLine) -> RunConfig:
    """The configuration that a command line asks for.

    Raises:
        ConfigError: with every problem found: unknown keys, wrong types (in presets too), values that disagree.
    """
    layers = Layers(list(line.problems))
    preset = line.overrides.get("preset") or "demo"
    layers.add_preset(preset)
    if line.overrides.get("debug"):
        layers.add_choice("debug", line.overrides["debug"], "")
    layers.add_overrides(line)
    layers.set("preset", preset, "command line")
    cfg = layers.build(to_run=not line.flags & {"--cfg", "--dry-run"})
    cfg.name = cfg.name or _name_of_what_is_given(cfg) or preset
    return cfg


def _name_of_what_is_given(cfg: RunConfig) -> str:
    """Others' clips and models have a folder of their own: they must not replace what the preset's run has made."""
    given = {"evaluate": cfg.evaluate.folder, "stream": cfg.stream.model}.get(cfg.stage)
    return "given-" + re.sub(r"[^\w.+-]+", "-", Path(given).resolve().name) if given else ""


def to_yaml(value: Any) -> str:
    """A configuration (or one group of it) as YAML, passwords hidden: it is printed, kept in runs and sent on."""
    return redact(OmegaConf.to_yaml(OmegaConf.create(asdict(value))))


class Layers:
    """A tree of values that grows layer by layer, remembering where each value came from."""

    def __init__(self, problems: list[str] | None = None) -> None:
        self.tree: dict[str, Any] = asdict(RunConfig())
        self.origin: dict[str, str] = {}
        self.problems = problems or []
        self._mistyped: list[str] = []
        self._known = leaves(RunConfig)

    def add_preset(self, name: str) -> None:
        """Lay ``conf/preset/NAME.yaml`` over the tree, after the preset that it extends."""
        for content, source in reversed(self._preset_family(name)):
            self._merge(content, source, "")

    def add_choice(self, group: str, name: str, prefix: str) -> None:
        """Lay ``conf/GROUP/NAME.yaml`` over the keys below ``prefix``."""
        content = self._read(group, name)
        if content is not None:
            self._merge(content, f"conf/{group.replace('.', '/')}/{name}.yaml", prefix)

    def add_overrides(self, line: CommandLine) -> None:
        """Lay the command line over the tree: chosen group files first, then single keys."""
        groups = {p: raw for p, raw in line.overrides.items() if (f := lookup(RunConfig, p)) and f.is_group}
        for path, raw in groups.items():
            self.add_choice(path, raw, path + ".")
        for path, raw in line.overrides.items():
            if path not in groups:
                self._override(path, raw, line.spelled[path])

    def set(self, path: str, value: Any, source: str) -> None:
        """Set one value."""
        *parents, last = path.split(".")
        at = self.tree
        for part in parents:
            at = at[part]
        at[last] = value
        self.origin[path] = source

    def build(self, *, to_run: bool = True) -> RunConfig:
        """Resolve, check types, then what belongs together."""
        try:
            tree = OmegaConf.to_container(OmegaConf.create(self.tree), resolve=True)
        except OmegaConfBaseException as error:
            self.problems.append(f"cannot resolve an interpolation: {error}")
            tree = copy.deepcopy(self.tree)
        cfg = self._instance(RunConfig, tree, "")
        anchor_paths(cfg, from_here={p for p, s in self.origin.items() if s == "command line"})
        # a default stands in for every value of a wrong type; rules about those keys would say nothing new
        rules = cross_check(cfg, to_run=to_run)
        self.problems += [rule for rule in rules if not any(path in rule for path in self._mistyped)]
        if self.problems:
            raise ConfigError(self.problems)
        return cfg

    def _instance(self, group: type, tree: Any, prefix: str) -> Any:
        values = {}
        for name, field in describe(group).items():
            path, value = prefix + name, tree[name]
            if field.is_group:
                values[name] = self._instance(field.type, value, path + ".")
                continue
            try:
                values[name] = convert(value, field.type)
            except Mismatch as error:
                self.problems.append(f"{path} ({self.origin.get(path, 'default')}): {error}")
                self._mistyped.append(path)
                values[name] = field.default
        return group(**values)

    def _override(self, path: str, raw: str, spelled: str) -> None:
        if path.startswith(("+", "~")):
            self.problems.append(f"{spelled}: keys are fixed here, write {path.lstrip('+~')}=VALUE")
            return
        field = lookup(RunConfig, path)
        if field is None:
            self.problems.append(f"unknown key {spelled}{self._suggest(path)}")
        else:
            self.set(path, parse_raw(raw, field.type), "command line")

    def _merge(self, content: dict[str, Any], source: str, prefix: str) -> None:
        for key, value in content.items():
            path = f"{prefix}{key}"
            field = lookup(RunConfig, path)
            if field is None:
                self.problems.append(f"{source}: unknown key {path}{self._suggest(path)}")
            elif not field.is_group:
                self.set(path, value, source)
            elif isinstance(value, dict):
                self._merge(value, source, path + ".")
            elif isinstance(value, str):
                self.add_choice(path, value, path + ".")
            else:
                self.problems.append(f"{source}: {path} is a group of keys, got {value!r}")

    def _suggest(self, path: str) -> str:
        last = path.rsplit(".", 1)[-1]
        same_name = [known for known in self._known if known.rsplit(".", 1)[-1] == last]
        return f"; did you mean {' or '.join(same_name[:3])}?" if same_name else nearest(path, self._known)

    def _preset_family(self, name: str) -> list[tuple[dict[str, Any], str]]:
        """The preset and those that it extends, nearest first."""
        family: list[tuple[dict[str, Any], str]] = []
        seen: list[str] = []
        at: str | None = name
        while at is not None:
            if at in seen:
                self.problems.append(f"presets extend each other in a circle: {' -> '.join([*seen, at])}")
                break
            seen.append(at)
            content = self._read("preset", at)
            if content is None:
                break
            extends = content.get("extends")
            family.append(({k: v for k, v in content.items() if k not in _FILE_KEYS}, f"conf/preset/{at}.yaml"))
            at = extends
        return family

    def _read(self, group: str, name: str) -> dict[str, Any] | None:
        known = choices(group)
        if name not in known:
            offer = f"; there are {', '.join(known)}" if known else f": conf/{group} holds no choices"
            self.problems.append(f"unknown {group}={name}{nearest(name, known) or offer}")
            return None
        path = CONF / group.replace(".", "/") / f"{name}.yaml"
        return read_yaml(path, self.problems)


def read_yaml(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """A YAML mapping with interpolations left in place; None and one problem where it is none."""
    shown = path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        problems.append(f"{shown}: not readable as YAML: {str(error).splitlines()[0]}")
        return None
    if not isinstance(content, dict):
        problems.append(f"{shown}: expected keys and values, got {type(content).__name__}")
        return None
    return {str(k): v for k, v in content.items()}
