"""``stage=prepare``: make the embedded puppet data set, or shards of given recordings (``recipe=``)."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory

log = logging.getLogger(__name__)


def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Write ``prepare/shards/*.tar`` with ``shards.json``; what is done already is kept.

    The puppet comes with ``contact_sheet.png`` and ``prompt/``, recordings with ``report.json``,
    ``contact_sheet.jpg`` and ``sources/`` (what is finished of each).

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
    from datamodules.intake.staging import SourceRecord

    shutil.rmtree(folder / "prompt", ignore_errors=True)  # of a puppet that was made here before
    columns = (TextColumn("prepare"), BarColumn(), MofNCompleteColumn(), TextColumn("recordings"),
               TextColumn("{task.fields[clips]} clips, {task.fields[made]:.0f} s of them, "
                          "{task.fields[rejected]} put aside, {task.fields[rate]:.2f} s of clips per s"),
               TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(highlight=False)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("recordings", total=None, clips=0, made=0.0, now=0.0, rejected=0, rate=0.0)

        def count(record: SourceRecord, new: bool) -> None:
            fields, seconds = bar.tasks[0].fields, sum(c["seconds"] for c in record.clips)
            now = fields["now"] + (seconds if new else 0.0)  # the rate is that of this run
            bar.update(task, advance=record.recordings, clips=fields["clips"] + len(record.clips),
                       made=fields["made"] + seconds, now=now, rejected=fields["rejected"] + len(record.rejections),
                       rate=now / max(bar.tasks[0].elapsed or 0.0, 1e-3))

        index, summary = produce(cfg.prepare.recipe, cfg.intake, folder, lambda n: bar.update(task, total=n), count)
    console.print(f"{summary['clips']} clips of {summary['recordings_used']} of {summary['recordings']} recordings, "
                  f"{summary['seconds']:.0f} s, {summary['speakers']} speakers, in {len(index.entries)} shards")
    for reason, number in summary["reasons"].items():
        console.print(f"  put aside: {number} x {reason}")
    if summary["sync_not_judged"]:
        console.print(f"  {summary['sync_not_judged']} clips have too little speech to be judged for off-screen voice "
                      "(intake.min_judged_s)")
    console.print(f"report: {folder / 'report.json'}", soft_wrap=True)
