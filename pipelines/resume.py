"""From where a training stage goes on: its newest complete checkpoint, if that was made with the same settings."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from callbacks import checkpoint_files as files
from pipelines.completion import read_mark, read_of_data, read_of_diffusion, read_of_stage
from pipelines.config.schema import STAGES, RunConfig
from pipelines.origins import identity
from pipelines.run_directory import RunDirectory, global_rank
from streamchar.errors import InputError

log = logging.getLogger(__name__)

_SCIENCE = ("seed", "clock", "window", "codec", "data", "diffusion", "orchestrator", "denoiser", "student")
_FREE = ("data.num_workers", "data.encode_workers", "data.max_bad_share")
"""Settings that may change between two processes of one stage without a word, besides its own steps and what
:func:`read_of_stage` leaves out."""


def settings(cfg: RunConfig, stage: str, directory: RunDirectory) -> dict[str, Any]:
    """What the stage's result depends on, flat: ``{"stages.dmd.generator.lr": 2e-6, "made.teacher": sha256}``."""
    unread = {"orchestrator": ("denoiser", "student"), "teacher": ("student",)}.get(stage, ())
    groups = [g for g in _SCIENCE if g not in unread]
    found = {"trainer.precision": cfg.trainer.precision}
    for group in groups:
        value = getattr(cfg, group)
        tree = asdict(value) if hasattr(value, "__dataclass_fields__") else None
        if group == "diffusion" and tree is not None:
            tree = read_of_diffusion(tree, stage)
        found |= flat(tree, group) if tree is not None else {group: value}
    found = read_of_data(found, stage)
    found |= flat(read_of_stage(asdict(getattr(cfg.stages, stage))), f"stages.{stage}")
    for earlier in STAGES[:STAGES.index(stage)]:
        if (made := made_by(directory, earlier)) is not None:
            found[f"made.{earlier}"] = made
    if (export := identity(cfg, directory, stage)) is not None:
        found["made.init"] = export
    free = (*_FREE, f"stages.{stage}.steps")
    kept = {k: v for k, v in found.items() if k not in free}
    return json.loads(json.dumps(kept, default=str))  # as it will be read back from a marker


def made_by(directory: RunDirectory, stage: str) -> str | None:
    """What a stage has made, in a few letters: the same result made twice is the same."""
    checkpoints = directory.stage(stage) / "checkpoints"
    for path in reversed(files.folders(checkpoints)):
        if (path / files.MARKER).exists():
            return str(files.read_marker(path)["files"][files.STATE]["sha256"])[:16]
    mark = read_mark(directory, stage)
    return str(mark.get("digest")) if mark is not None else None


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted path."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        found |= flat(value, path) if isinstance(value, dict) else {path: value}
    return found


def find_start(folder: Path, mode: str, now: dict[str, Any],
               environment: Mapping[str, str] = os.environ) -> Path | None:
    """The checkpoint to go on from; None for a fresh start, for which older checkpoints are put aside.

    Args:
        folder: ``STAGE/checkpoints``.
        mode: ``trainer.resume``. A job that Slurm has started again goes on even where it says ``never``.
        now: :func:`settings` of this run.

    Raises:
        InputError: where settings have changed and ``mode`` is ``auto``.
    """
    if mode == "never" and int(environment.get("SLURM_RESTART_COUNT", "0") or 0) == 0:
        if global_rank() == 0:
            put_aside(folder)
        return None
    path = files.newest_complete(folder)
    if global_rank() == 0:
        _leave_damaged(folder, path)
    if path is None:
        return None
    changed = differences(files.read_marker(path).get("settings", {}), now)
    if changed and mode == "auto":
        shown = "\n  ".join(changed[:8]) + (f"\n  and {len(changed) - 8} more" if len(changed) > 8 else "")
        raise InputError(f"{path} was made with other settings:\n  {shown}\nchoose another name=, or "
                         "trainer.resume=never to start afresh (older checkpoints are put aside), or "
                         "trainer.resume=force to go on with the changed settings")
    if changed:
        log.warning("%s: going on with changed settings: %s", path, "; ".join(changed))
    return path


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings that differ, as ``key: then -> now``; those only one side knows are told too."""
    missing = "(not there)"
    return [f"{key}: {then.get(key, missing)} -> {now.get(key, missing)}"
            for key in sorted({*then, *now}) if then.get(key, missing) != now.get(key, missing)]


def _leave_damaged(folder: Path, good: Path | None) -> None:
    """Rename checkpoints newer than the one taken: they are damaged, and must not count as the newest later."""
    for path in files.folders(folder):
        if good is None or files.step_of(path) > files.step_of(good):
            number = 1
            while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
                number += 1
            path.rename(aside)


def put_aside(folder: Path) -> None:
    """Rename a folder of checkpoints, so that a fresh start neither uses nor deletes them, and put what else belongs
    to that life of the stage into it: its rows, samples and notes are not the next one's."""
    stage = folder.parent
    more = [stage / "metrics.jsonl", stage / "samples", *sorted(stage.glob("config_diff_*.txt"))]
    if not files.folders(folder):
        return
    for path in more:
        if path.exists():
            path.rename(folder / path.name)
    number = 1
    while (aside := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    folder.rename(aside)  # last: a start that is killed before it finds the checkpoints and does the rest
    log.info("starting afresh: older checkpoints are now in %s", aside)
