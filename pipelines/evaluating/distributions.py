"""Rows of the report on distributions: Frechet distances to real clips, in latents and in published features."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.evaluating.devices import Devices
from pipelines.evaluating.material import Subject
from pipelines.evaluating.streams import stack
from streamchar.evaluation.frechet import chunk_features, frechet_distance
from streamchar.evaluation.report import Report
from streamchar.types import Latents

LEAST = 4
"""Samples on each side below which no distance is given."""


def latent_rows(report: Report, chunks: dict[str, list[Latents]], real: list[Latents]) -> None:
    """Frechet distance to real chunks, over equally many chunks; no model: real chunks against other real chunks."""
    size = min([len(real) // 2, *[len(c) for c in chunks.values()]])
    if size < LEAST:
        return
    # even against odd: both halves hold all clips
    halves = {"baseline": real[::2][:size], **{c: v[:size] for c, v in chunks.items()}}
    target = chunk_features(*_pair(real[1::2][:size]))
    for i, name in enumerate(("video", "audio")):
        values = {c: frechet_distance(chunk_features(*_pair(v))[i], target[i]) for c, v in halves.items()}
        report.add("distribution", f"Frechet distance, {name} latents", values,
                   note=f"{size} chunks against {size} real ones", baseline="other real chunks")


def deep_rows(report: Report, subjects: list[Subject], devices: Devices) -> None:
    """Frechet distances in features of Inception (frames) and I3D (clips), where those networks are given."""
    for name, network in (("Inception", devices.inception), ("I3D", devices.i3d)):
        if network is None:
            continue
        features: dict[str, list[Tensor]] = {}
        least = getattr(network, "clip_frames", 1)
        for subject in subjects:
            for column, r in subject.renderings.items():
                if len(r.frames) >= least:
                    features.setdefault(column, []).append(network(r.frames))
        real = torch.cat(features.get("real", [torch.zeros(0, 1)]))
        columns = {c: torch.cat(f) for c, f in features.items() if c != "real"}
        size = min([len(real), *map(len, columns.values())], default=0)
        if size < LEAST:
            continue
        report.add("distribution", f"Frechet distance, {name}",
                   {c: frechet_distance(f[:size], real[:size]) for c, f in columns.items()},
                   note=f"{size} samples a side, covariances shrunk: compares inside this table only")


def _pair(chunks: list[Latents]) -> tuple[Tensor, Tensor]:
    whole = stack(chunks)
    return whole.video, whole.audio
