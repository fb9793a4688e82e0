"""The summary of a chain reads what was logged and says where results lie."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from pipelines.run_directory import RunDirectory
from pipelines.summary import print_summary


def log(run: RunDirectory, stage: str, *lines: dict[str, float]) -> None:
    run.stage(stage).mkdir(parents=True, exist_ok=True)
    (run.stage(stage) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')


def test_summary(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, "r")
    log(run, "teacher", {"step": 0, "eval/loss": 2.0}, {"step": 1, "train/loss": 1.5}, {"step": 2, "eval/loss": 1.25})
    log(run, "dmd", {"step": 0, "eval/student_distance_video": 0.9, "eval/teacher_few_distance_video": 0.8},
        {"step": 5, "eval/student_distance_video": 0.5, "eval/teacher_few_distance_video": 0.8})
    run.stage("stream").mkdir()
    (run.stage("stream") / "clip.mp4").touch()
    with (tmp_path / "out").open("w") as out:
        console = Console(record=True, width=160, file=out)
        print_summary(run, console)
    text = console.export_text()
    for part in ("2.0000", "1.2500", "0.9000", "0.5000", "0.8000", str(run.stage("stream") / "clip.mp4")):
        assert part in text
    assert "rollout" not in text and "report.json" not in text
