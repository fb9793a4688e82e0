"""``stage=evaluate``: streams from picture, voice and text, measured beside what needs no model."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipelines.config.schema import RunConfig
from pipelines.evaluating.folder import score_folder
from pipelines.evaluating.long import long_protocol
from pipelines.evaluating.short import short_protocol
from pipelines.gate.gate import run_gate
from pipelines.run_directory import RunDirectory
from pipelines.stages.stream import set_threads


@torch.no_grad()
def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Write ``evaluate/report.json``, ``table.txt``, ``index.html``, videos and strips; print the table.

    Raises:
        InputError: where the model, the latents, the clips or a file that was asked for is missing.
        StreamCharError: where ``evaluate.gate`` is asked for and not passed.
    """
    console = Console(highlight=False)
    set_threads(cfg)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        protocol = long_protocol if cfg.evaluate.protocol == "long" else short_protocol
        report = (score_folder if cfg.evaluate.folder else protocol)(cfg, directory, bar)
    folder = directory.stage("evaluate")
    report.save(folder)
    fits = console.is_terminal and console.width >= 120
    wide = console if fits else Console(width=max(console.width, report.width()))
    wide.print(report.table())
    console.print(f"page: {folder / 'index.html'}", soft_wrap=True)
    if cfg.evaluate.gate:
        run_gate(cfg, directory, console)
