"""What a finished chain has to show: held-out figures of every training stage, where the report and the clip lie."""

from __future__ import annotations

from rich.console import Console

from pipelines.closing import print_closing
from pipelines.config.schema import TRAINING
from pipelines.run_directory import RunDirectory

_RESULTS = (("evaluate", "report.json"), ("evaluate", "index.html"), ("stream", "clip.mp4"))


def print_summary(run: RunDirectory, console: Console) -> None:
    """Say again at the end what the stages said at theirs; silent on stages that the run has not."""
    for stage in TRAINING:
        if run.has(stage, "metrics.jsonl"):
            print_closing(stage, run.stage(stage) / "metrics.jsonl", console)
    for stage, name in _RESULTS:
        if run.has(stage, name):
            console.print(f"{stage:<13}{run.stage(stage) / name}", soft_wrap=True)
