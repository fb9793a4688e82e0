"""Clips of the evaluations side by side, and what the training stages drew last."""

from __future__ import annotations

from html import escape
from pathlib import Path

from pipelines.config.schema import TRAINING
from pipelines.reporting.media import Media
from pipelines.reporting.reading import RunFound
from streamchar.evaluation.page import clip_card, clip_figure
from streamchar.evaluation.report import CHEATS, MODELS, TITLES, ClipRow


def evaluated_clips(runs: list[RunFound], media: Media) -> list[str]:
    """A card per clip: what was recorded once, then what each run's models made of it."""
    shown: dict[str, list[tuple[RunFound, ClipRow]]] = {}
    for run in runs:
        for clip in run.report.clips if run.report else []:
            shown.setdefault(clip.key, []).append((run, clip))
    return [card for found in shown.values() if (card := _card(found, media))]


def _card(found: list[tuple[RunFound, ClipRow]], media: Media) -> str:
    """Real clips and the codec's once, from the first run that has them; cheats stay on the runs' own pages."""
    wanted: dict[str, tuple[RunFound, ClipRow, str]] = {}
    for run, clip in found:
        for column in clip.videos:
            title = f"{run.name}: {TITLES.get(column, column)}" if column in MODELS else TITLES.get(column, column)
            if column not in CHEATS:
                wanted.setdefault(title, (run, clip, column))
    paths = {title: (_path(run, clip.videos[column]), _path(run, clip.posters.get(column, "")))
             for title, (run, clip, column) in wanted.items()}
    at = media.addresses(path for pair in paths.values() for path in pair if path)
    figures = [clip_figure(clip, column, title, at[video], at.get(still, "") if still else "")
               for title, (_, clip, column) in wanted.items() for video, still in [paths[title]]
               if video is not None and video in at]
    return clip_card(found[0][1], figures) if figures else ""


def _path(run: RunFound, name: str) -> Path | None:
    """A file of the run's evaluation; a report may come from others, so nothing outside of that folder."""
    folder = run.directory.stage("evaluate")
    path = folder / name
    return path if name and path.resolve().is_relative_to(folder.resolve()) else None


def last_samples(runs: list[RunFound], media: Media) -> list[str]:
    """A card per training stage: each run's newest picture of the pointer and its newest sample clip."""
    cards = []
    for stage in TRAINING:
        newest = [(run, path) for pattern in ("pointer_step_*.png", "step_*.mp4") for run in runs
                  if (path := _newest(run.directory.stage(stage) / "samples", pattern))]
        at = media.addresses(path for _, path in newest)
        pictures = "".join(_figure(run, path, at[path]) for run, path in newest if path.suffix == ".png")
        films = "".join(_figure(run, path, at[path]) for run, path in newest if path.suffix == ".mp4")
        rows = "".join(f'<div class="{kind}">{shown}</div>'
                       for kind, shown in (("pictures", pictures), ("videos", films)) if shown)
        if rows:
            cards.append(f"<section class=clip><h3>{stage}</h3>{rows}</section>")
    return cards


def _newest(folder: Path, pattern: str) -> Path | None:
    """The first file of the highest step."""
    paths = sorted(folder.glob(pattern))
    step = paths[-1].name.partition("step_")[2][:8] if paths else ""
    return next((path for path in paths if f"step_{step}" in path.name), None)


def _figure(run: RunFound, path: Path, address: str) -> str:
    step = int(path.name.partition("step_")[2][:8])
    shown = (f'<img alt="pointer" src="{address}">' if path.suffix == ".png" else
             f'<video controls preload="metadata" src="{address}"></video>')
    return f"<figure>{shown}<figcaption><b>{escape(run.name)}</b> step {step:,}</figcaption></figure>"
