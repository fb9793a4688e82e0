"""A sweep: one training stage of a run, again and again with the settings of a grid, as runs beside one another.

``python pipelines/sweep.py conf/sweep/NAME.yaml preset=5b name=mine`` checks every member before anything is
submitted, lays out their folders, and prints ``STAGE NAME COUNT FOLDER`` for ``slurm/sweep.sh``.

Member 2 is the run ``mine-NAME-2``: the stages before the swept one are links to those of the run ``mine``, its
settings stand in ``FOLDER/members/2``, and its MLflow run is a child of the sweep's own.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from callbacks.redaction import redact  # noqa: E402
from pipelines.config.compose import compose, read_yaml  # noqa: E402
from pipelines.config.errors import ConfigError, nearest  # noqa: E402
from pipelines.config.grammar import canonical, parse  # noqa: E402
from pipelines.config.recall import recall  # noqa: E402
from pipelines.config.schema import STAGES, TRAINING, RunConfig  # noqa: E402
from pipelines.run_directory import RunDirectory, write_atomically  # noqa: E402
from streamchar.errors import InputError  # noqa: E402

PLAN = "sweep.json"
MOST = 256
"""Members of one sweep: a grid grows faster than one thinks."""
FIXED = ("name", "root", "stage", "preset", "debug", "callbacks.tracking", "callbacks.alerts")
"""What all members share, so that they are one another's peers."""


@dataclass(frozen=True)
class Sweep:
    """file: name of the sweep's file. stage: what is trained. members: the values of each, by dotted key."""

    file: str
    about: str
    stage: str
    members: list[dict[str, Any]]


def read_sweep(path: Path, stage: str = "") -> Sweep:
    """A sweep's file; ``stage`` takes the place of the file's own.

    Raises:
        ConfigError: with everything that is wrong with it.
    """
    problems: list[str] = []
    if not path.is_file():
        raise ConfigError([f"{path}: no such file; sweeps are conf/sweep/NAME.yaml"])
    content = read_yaml(path, problems) or {}
    known = ("about", "stage", "grid")
    problems += [f"{path}: unknown key {key}{nearest(key, known)}" for key in content if key not in known]
    stage = stage or str(content.get("stage", ""))
    if stage not in TRAINING:
        problems.append(f"{path}: stage: {stage or 'nothing'} cannot be swept; choose one of {', '.join(TRAINING)}")
    grid = content.get("grid")
    if not isinstance(grid, dict) or not grid:
        problems.append(f"{path}: grid: must be keys with lists of values, for example dmd.critic.lr: [1e-4, 2e-4]")
        grid = {}
    keys = [canonical(str(key), stage) for key in grid]
    for key, values in zip(keys, grid.values(), strict=True):
        if not isinstance(values, list) or not values:
            problems.append(f"{path}: {key}: must be a list of values, got {values!r}")
        elif len({json.dumps(v) for v in values}) < len(values):
            problems.append(f"{path}: {key}: the same value stands twice in {values!r}")
        if any(f"{key}.".startswith(f"{same}.") for same in FIXED):
            problems.append(f"{path}: {key} is the same in all members of a sweep; give it on the command line")
    if len(set(keys)) < len(keys):
        problems.append(f"{path}: a key stands in the grid twice: {', '.join(map(str, grid))}")
    if problems:
        raise ConfigError(problems)
    members = [dict(zip(keys, values, strict=True)) for values in product(*grid.values())]
    if len(members) > MOST:
        raise ConfigError([f"{path}: the grid has {len(members)} members, more than {MOST}: leave values out"])
    return Sweep(path.stem, str(content.get("about", "")), stage, members)


def settings_of(member: dict[str, Any]) -> list[str]:
    """A member's values as they are written on a command line."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in member.items()]


def check_members(sweep: Sweep, settings: list[str]) -> RunConfig:
    """The configuration of the run that is swept, when every member's can be composed too.

    Raises:
        ConfigError: naming the members that a problem has; InputError: where the run lacks what the stage needs.
    """
    from pipelines.run import check_inputs  # the command itself, which the stages must not load again

    line = parse([*settings, f"stage={sweep.stage}"])
    given = dict(line.overrides)
    recall(line)
    base = compose(line)
    same = [*settings, f"stage={sweep.stage}", f"preset={base.preset}", f"name={base.name}"]
    problems = [f"{key} is swept, and given on the command line too: leave one of them out"
                for key in sweep.members[0] if key in given]
    found: dict[str, list[int]] = {}
    for number, member in enumerate(sweep.members):
        try:
            compose(parse([*same, *settings_of(member)]))
        except ConfigError as error:
            for problem in error.problems:
                found.setdefault(problem, []).append(number)
    problems += [f"{problem} (member {', '.join(map(str, numbers))})" for problem, numbers in found.items()]
    if problems:
        raise ConfigError(problems)
    check_inputs(base, RunDirectory.of(base))
    return base


def lay_out(sweep: Sweep, base: RunConfig) -> RunDirectory:
    """Make the folders of the sweep and of its members; those that are there already must be of the same sweep.

    Raises:
        InputError: where the folder holds another sweep, or cannot be written.
    """
    directory = RunDirectory.of(base)
    folder = RunDirectory(directory.root, f"{directory.name}-{sweep.file}")
    plan = {"sweep": folder.name, "of": directory.name, "about": sweep.about, "stage": sweep.stage,
            "members": sweep.members}
    made = _read(folder.path / PLAN)
    if made and made != plan:
        raise InputError(f"{folder.path} holds a sweep with other members or of another stage; give the file another "
                         f"name, or remove the runs {folder.name}*")
    try:
        (folder.path / "members").mkdir(parents=True, exist_ok=True)
        for number, member in enumerate(sweep.members):
            write_atomically(folder.path / "members" / str(number), "\n".join(settings_of(member)) + "\n")
            run = RunDirectory(directory.root, f"{folder.name}-{number}")
            run.path.mkdir(exist_ok=True)
            for stage in STAGES[:STAGES.index(sweep.stage)]:
                if directory.stage(stage).is_dir() and not run.stage(stage).exists():
                    run.stage(stage).symlink_to(os.path.relpath(directory.stage(stage), run.path))
            write_atomically(run.path / PLAN, json.dumps({"sweep": folder.name, "member": number, "values": member}))
        write_atomically(folder.path / PLAN, json.dumps(plan, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write to {folder.path}: {error.strerror or error}; choose another root=") from error
    return folder


def open_parent(base: RunConfig, sweep: Sweep, folder: RunDirectory) -> None:
    """Make the sweep's own MLflow run and tell its members of it: where it is, and that it is above them.

    A server that is away costs a warning: each member is then a run of its own.
    """
    from callbacks.mlflow_run import IDENTITY, About, MLflowRun

    tracking = base.callbacks.tracking
    if tracking.kind != "mlflow":
        return
    grid = {key: ", ".join(dict.fromkeys(json.dumps(m[key]) for m in sweep.members))[:400] for key in sweep.members[0]}
    about = About({"stage": sweep.stage, "preset": base.preset, "members": len(sweep.members), **grid},
                  {"sweep": folder.name, "mlflow.note.content": sweep.about})
    try:
        run = MLflowRun(tracking.uri, folder.root, folder.path, tracking.experiment, folder.name, about)
        run.open_parent(folder.path / PLAN)
    except Exception as error:  # whatever a server or its client does, the members can run
        print(f"the sweep has no MLflow run of its own ({type(error).__name__}: {redact(str(error))[:160]}); its "
              "members will stand alone", file=sys.stderr)
        return
    identity = (folder.path / IDENTITY).read_text(encoding="utf-8")
    for number in range(len(sweep.members)):
        write_atomically(folder.root / f"{folder.name}-{number}" / IDENTITY, identity)


def swept(directory: RunDirectory) -> dict[str, Any]:
    """What a member of a sweep differs in, for its dashboard; nothing where the run is none."""
    plan = _read(directory.path / PLAN)
    return {"sweep": plan["sweep"], **plan["values"]} if "values" in plan else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def main(arguments: list[str]) -> int:
    """Returns the exit code: 2 where something is wrong with the sweep, before anything is written."""
    try:
        if not arguments or "=" in arguments[0]:
            raise InputError("usage: slurm/sweep.sh conf/sweep/NAME.yaml [key=value ...]")
        path, settings = Path(arguments[0]), arguments[1:]
        stage = next((s.partition("=")[2] for s in reversed(settings) if s.startswith("stage=")), "")
        sweep = read_sweep(path, stage)
        base = check_members(sweep, settings)
        folder = lay_out(sweep, base)
        open_parent(base, sweep, folder)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for number, member in enumerate(sweep.members):
        print(f"{folder.name}-{number}  {' '.join(settings_of(member))}", file=sys.stderr)
    print(sweep.stage, folder.name, len(sweep.members), folder.path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
