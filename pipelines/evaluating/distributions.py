"""Rows of the report on distributions: Frechet distances to real clips, in latents and in published features.

Every column is compared over the same clips with equally many samples of each, since other characters are another
distribution. Real samples take turns: every other one is the goal, those between show how far real is from real. The
clips take turns in which comes first, else clips of two chunks would compare beginnings with ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipelines.evaluating.devices import Devices
from pipelines.evaluating.material import Subject
from pipelines.evaluating.streams import real_chunks, stack
from streamchar.clock import ChunkClock
from streamchar.evaluation.frechet import chunk_features, frechet_distance
from streamchar.evaluation.jackknife import jackknife_interval
from streamchar.evaluation.report import CHEATS, Report

LEAST = 4
"""Samples on each side below which no distance is given."""
LEAST_CLIPS = 10
"""Clips below which a distance has no interval."""
MOST_FEATURES = 512
"""Features above which it has none: a distance of Inception's 2048 takes two seconds, and a hundred are wanted."""


def latent_rows(report: Report, subjects: list[Subject], clock: ChunkClock) -> None:
    """Distances in features of chunk latents."""
    for i, name in enumerate(("video", "audio")):
        pools = [{"real": _features(real_chunks(s, clock), i), **{c: _features(v, i) for c, v in s.latents.items()}}
                 for s in subjects]
        _row(report, pools, f"Frechet distance, {name} latents", "chunks")


def deep_rows(report: Report, subjects: list[Subject], devices: Devices) -> None:
    """Distances in features of Inception (frames) and I3D (clips), where those networks are given."""
    networks: list[tuple[str, str, Callable[..., Tensor] | None, int]] = [
        ("Inception", "frames", devices.inception, 1),
        ("I3D", "clips", devices.i3d, devices.i3d.clip_frames if devices.i3d else 0)]
    for name, what, network, least in networks:
        if network is None:
            continue
        shown = [{c: r.frames for c, r in s.renderings.items() if c not in CHEATS} for s in subjects]
        pools = [{c: network(frames) for c, frames in columns.items()} for columns in shown
                 if "real" in columns and min(map(len, columns.values())) >= least]  # else nothing can stand beside it
        _row(report, pools, f"Frechet distance, {name}", what)


def _row(report: Report, pools: Sequence[dict[str, Tensor]], name: str, what: str) -> None:
    """One row from features by column, (N, D) per clip."""
    columns = set.intersection(*(set(p) for p in pools)) if pools else set()
    if "real" not in columns:
        return
    between: dict[str, list[Tensor]] = {c: [] for c in columns}
    goal: list[Tensor] = []
    for number, pool in enumerate(pools):
        half, first = min(len(pool[c]) for c in columns) // 2, number % 2
        if not half:  # a clip of less than two chunks, say: no turns to take
            continue
        goal.append(pool["real"][1 - first:2 * half:2])
        for column in columns:
            between[column].append(pool[column][first:2 * half:2])
    samples = sum(map(len, goal))
    if samples < LEAST:
        return
    values, intervals = dict[str, float](), dict[str, tuple[float, float]]()
    for column, mine in between.items():
        name_of = "baseline" if column == "real" else column
        values[name_of] = frechet_distance(torch.cat(mine), torch.cat(goal))
        if len(goal) >= LEAST_CLIPS and goal[0].shape[1] <= MOST_FEATURES:
            intervals[name_of] = _interval(mine, goal)
    report.add("distribution", name, values, intervals, note=f"{samples} {what} a side, the same clips; covariances "
               "shrunk: compares inside this table only", baseline="other real ones")


def _interval(mine: list[Tensor], goal: list[Tensor]) -> tuple[float, float]:
    """Over the clips; no distance is below 0."""
    low, high = jackknife_interval(len(goal), lambda kept: frechet_distance(
        torch.cat([mine[i] for i in kept]), torch.cat([goal[i] for i in kept])))
    return max(low, 0.0), high


def _features(chunks: list, which: int) -> Tensor:
    if not chunks:
        return torch.zeros(0, 1)
    whole = stack(chunks)
    return chunk_features(whole.video, whole.audio)[which]
