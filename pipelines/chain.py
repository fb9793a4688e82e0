"""``stage=all``: the stages that a preset needs, one after the other, each skipped where it is complete."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from pipelines.completion import is_complete
from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory


def run_all(cfg: RunConfig, run_stage: Callable[[RunConfig], float], console: Console) -> None:
    """Run ``cfg.chain`` with ``run_stage``, which runs ``cfg.stage`` and returns its seconds."""
    directory = RunDirectory.of(cfg)
    begun = time.monotonic()
    console.print(f"[bold]run {cfg.name}[/] in {directory.path}: {' -> '.join(cfg.chain)}", soft_wrap=True)
    for stage in cfg.chain:
        console.print(_line(stage, *_attempt(stage, cfg, directory, run_stage, console)), soft_wrap=True)
    from pipelines.summary import print_summary  # loads the training framework

    print_summary(directory, console)
    console.print(f"[bold]run {cfg.name}[/] complete after {clock(time.monotonic() - begun)}", soft_wrap=True)


def _attempt(stage: str, cfg: RunConfig, directory: RunDirectory, run_stage: Callable[[RunConfig], float],
             console: Console) -> tuple[str, str, str]:
    """What became of a stage: state, time, remark."""
    given = [f"data.{k}={v}" for k in ("shards", "latents", "mix") if (v := getattr(cfg.data, k)) is not None]
    if stage == "prepare" and given:
        return "not needed", "", ", ".join(given)
    mark = is_complete(directory, stage, cfg)
    if mark is not None:
        return "complete", clock(mark.get("seconds", 0.0)), f"made {mark['finished'][:19]} with the same settings"
    console.rule(f"[bold]{stage}", align="left")
    seconds = run_stage(replace(cfg, stage=stage))
    return "done", clock(seconds), str(directory.stage(stage))


def clock(seconds: float) -> str:
    """``4.2 s``, ``3 min 07 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _line(stage: str, state: str, duration: str, remark: str) -> str:
    colour = "green" if state == "done" else "cyan"
    return f"[{colour}]{stage:<13}{state:<11}[/]{duration:>12}  {remark}"
