"""``stage=prepare``: make the embedded puppet data set, a contact sheet of it and a prompt to stream from."""

from __future__ import annotations

import logging
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.puppet.production import produce
from datamodules.puppet.recipe import plan_shards
from datamodules.puppet.showcase import contact_sheet, write_prompt
from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory

log = logging.getLogger(__name__)


def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Write ``prepare/shards/*.tar`` with ``shards.json``, ``contact_sheet.png`` and ``prompt/``; keeps what is done.

    Raises:
        InputError: wrong options, espeak-ng missing, or a full disk.
    """
    folder = directory.stage("prepare")
    total = sum(len(p.clips) for p in plan_shards(cfg.prepare))
    started = time.monotonic()
    columns = (TextColumn("prepare"), BarColumn(), MofNCompleteColumn(), TextColumn("clips, {task.fields[made]:.0f} s"),
               TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("clips", total=total, made=0.0)

        def report(clips: int, seconds: float) -> None:
            bar.update(task, advance=clips, made=bar.tasks[0].fields["made"] + seconds)

        index = produce(cfg.prepare, folder / "shards", report)
    contact_sheet(cfg.prepare, folder / "contact_sheet.png")
    write_prompt(cfg.prepare, folder / "prompt")
    log.info("prepare: %d clips, %.0f s of them, in %d shards after %.1f s: %s", index.samples, index.seconds,
             len(index.entries), time.monotonic() - started, folder)
