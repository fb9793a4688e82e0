"""What stands beside the page: per clip and column an mp4, a still of its middle, and a strip."""

from __future__ import annotations

from rich.progress import Progress

from pipelines.evaluating.material import Subject
from pipelines.run_directory import RunDirectory
from streamchar.clock import ChunkClock
from streamchar.evaluation.report import CHEATS, ClipRow, Report
from streamchar.evaluation.strip import still_image, strip_image
from streamchar.streaming.muxer import write_clip

SHOWN = 24
"""Subjects that the page shows."""
MOST_CHEATS = 1
"""Clips whose cheats are shown; they look alike."""


def show_clips(directory: RunDirectory, subjects: list[Subject], report: Report, clock: ChunkClock, bar: Progress
               ) -> None:
    """Write the files of the first subjects and enter them in the report."""
    folder = directory.stage("evaluate") / "videos"
    for n, subject in enumerate(bar.track(subjects[:SHOWN], description="videos")):
        row = ClipRow(subject.key, subject.text)
        for column, r in subject.renderings.items():
            if not len(r.frames) or (column in CHEATS and n >= MOST_CHEATS):
                continue
            name = f"{subject.key}-{column}"
            row.videos[column], row.posters[column] = f"videos/{name}.mp4", f"videos/{name}-still.png"
            high, wide = (size // 2 * 2 for size in r.frames.shape[1:3])  # h264 wants even sizes
            write_clip(folder / f"{name}.mp4", r.frames[:, :high, :wide], r.sound, clock.fps, clock.sample_rate)
            still_image(r.frames).save(folder / f"{name}-still.png")
            strip_image(r.frames, r.sound, clock.fps).save(folder / f"{name}.png")
        report.clips.append(row)
    if len(subjects) > SHOWN:
        report.notes.append(f"The page shows {SHOWN} of {len(subjects)} clips; all are scored.")
