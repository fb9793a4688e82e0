"""Samples: what the model makes of fixed prompts and noise, as mp4 with sound, panels side by side."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from callbacks.cadence import due
from callbacks.inference import inference, takes_part
from callbacks.protocols import Sampled, SampleVideo
from callbacks.step_logger import log_file, log_now

log = logging.getLogger(__name__)


class Samples(L.Callback):
    """Writes ``folder/step_XXXXXXXX_NAME.mp4`` (reference | teacher | student | averaged), copied to the tracker.

    A clip that cannot be made or written costs a warning, never the run.

    Args:
        folder: where clips go.
        every: steps between samples; 0: never; -1: at the stage's last step.
        weights: context of averaged weights; None: there are none.
    """

    def __init__(self, folder: Path, every: int,
                 weights: Callable[[L.LightningModule], AbstractContextManager[None]] | None = None) -> None:
        self.folder, self.every = folder, every
        self.weights = weights

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if not due(trainer, self.every) or not takes_part(trainer) or not isinstance(module, Sampled):
            return
        with inference(trainer, module):
            videos = module.sample_videos(partial(self.weights, module) if self.weights else None)
        if not trainer.is_global_zero:
            return
        written = 0
        for video in videos:
            name = re.sub(r"[^\w.+-]+", "_", video.name)
            path = self.folder / f"step_{trainer.global_step:08d}_{name}.mp4"
            try:
                write_sample(path, video)
            except Exception as error:  # an encoder's failure must not cost a training run
                log.warning("sample %s was not written: %s", path, error)
                continue
            written += 1
            log_file(trainer, path, "samples")
        log_now(trainer, {"samples/written": float(written)})


def write_sample(path: Path, video: SampleVideo) -> None:
    """Write one clip: (F, 3, H, W) panels beside one another, a still or short panel held at its last frame."""
    from streamchar.streaming.muxer import ClipWriter

    frames = side_by_side(list(video.panels.values()))
    with ClipWriter(path, (frames.shape[1], frames.shape[2]), video.fps, video.sample_rate) as writer:
        writer.write(frames, video.wave.detach().float().cpu().numpy())


def side_by_side(panels: list[Tensor]) -> np.ndarray:
    """Panels (F_i, 3, H, W) in [0, 1] -> (max F, H, sum W) uint8 RGB frames, even in size as h264 wants them."""
    length = max(len(p) for p in panels)
    held = [torch.cat((p, p[-1:].expand(length - len(p), -1, -1, -1))) for p in (q.detach().float() for q in panels)]
    row = torch.cat([p.cpu() for p in held], dim=3)
    row = row[:, :, :row.shape[2] // 2 * 2, :row.shape[3] // 2 * 2]
    return (row.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
