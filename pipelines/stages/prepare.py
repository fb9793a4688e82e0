"""``stage=prepare``: make the embedded puppet data set, or shards of given recordings (``recipe=``)."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory

log = logging.getLogger(__name__)


def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Write ``prepare/shards/*.tar`` with ``shards.json``; what is done already is kept.

    The puppet comes with ``contact_sheet.png`` and ``prompt/``, recordings with ``report.json``,
    ``clips.jsonl``, ``put_aside.jsonl``, ``contact_sheet.jpg`` and ``sources/`` (what is finished of each).

    Raises:
        InputError: wrong options, missing models or input, no usable recording, or a full disk.
    """
    folder = directory.stage("prepare")
    if cfg.prepare.recipe == "puppet":
        _puppet(cfg, folder)
    else:
        _recordings(cfg, folder)


def _puppet(cfg: RunConfig, folder: Path) -> None:
    from datamodules.puppet.production import produce
    from datamodules.puppet.recipe import plan_shards
    from datamodules.puppet.showcase import contact_sheet, write_prompt

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


def _recordings(cfg: RunConfig, folder: Path) -> None:
    from datamodules.intake.production import produce
    from datamodules.intake.report import PUT_ASIDE
    from datamodules.intake.staging import SourceRecord

    shutil.rmtree(folder / "prompt", ignore_errors=True)  # of a puppet that was made here before
    columns = (TextColumn("prepare"), BarColumn(20), MofNCompleteColumn(),
               TextColumn("{task.description}", table_column=Column()),  # wraps where the terminal is narrow
               TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(highlight=False)
    with Progress(*columns, console=console) as bar:
        made = bar.add_task("recordings", total=None)
        counts = {"clips": 0, "aside": 0, "seconds": 0.0, "now": 0.0}
        shards: list[TaskID] = []

        def count(record: SourceRecord, new: bool) -> None:
            seconds = sum(c["seconds"] for c in record.clips)
            counts["clips"] += len(record.clips)
            counts["aside"] += len(record.rejections)
            counts["seconds"] += seconds
            counts["now"] += seconds if new else 0.0  # the rate is that of this run
            rate = counts["now"] / max(bar.tasks[0].elapsed or 0.0, 1e-3)
            bar.update(made, advance=record.recordings, description=f"recordings: {counts['clips']} clips, "
                       f"{counts['seconds']:.0f} s of them, {counts['aside']} put aside, {rate:.2f} s of clips per s")

        def packed(clips: int) -> None:
            if not shards:
                shards.append(bar.add_task("clips in shards", total=counts["clips"]))
            bar.update(shards[0], advance=clips)

        index, summary = produce(cfg.prepare.recipe, cfg.intake, folder, lambda n: bar.update(made, total=n), count,
                                 packed)
    console.print(f"{summary['clips']} clips of {summary['recordings_used']} of {summary['recordings']} recordings, "
                  f"{summary['seconds']:.0f} s, {summary['speakers']} speakers, in {len(index.entries)} shards")
    for reason, number in summary["reasons"].items():
        console.print(f"  put aside: {number} x {reason}")
    if summary["sync_not_judged"]:
        console.print(f"  {summary['sync_not_judged']} clips have too little speech to be judged for off-screen voice "
                      "(intake.min_judged_s)")
    if summary["rejected"]:
        console.print(f"each with its reason: {folder / PUT_ASIDE}", soft_wrap=True)
    console.print(f"report: {folder / 'report.json'}", soft_wrap=True)
