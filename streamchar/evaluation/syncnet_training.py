"""Training of our SyncNet on real clips: minutes on one CPU core.

Every step draws windows from a few clips. A window's sound must be found among the sounds of all of them, and its
pictures among the pictures (InfoNCE both ways): the same clip at other times teaches the offset, other clips teach
which mouths make which sounds. Pictures are flipped, moved, blurred and lit differently and sounds made louder or
noisier, per clip, so that soft generated pictures and quiet generated voices are measured like recorded ones.

Held-out clips after training with the defaults (2.5 CPU minutes on one core of an AMD EPYC), mean confidence / distance
and the share of offsets within one frame; GRID: 900 clips of one speaker, 50 held out; puppet: 100 clips, 12 held out:

| | GRID | puppet |
|---|---|---|
| true clips | .46 / .78, 98 % | .72 / .56, 100 % |
| the mouth 5 frames late, or early | .49 / .77, 98 % | .74 / .54, 100 % |
| another clip's sound | .17 / 1.09 | .08 / 1.30 |
| a still picture | .02 / 1.24 | .01 / 1.27 |
| pictures of noise | .03 / 1.26 | .02 / 1.30 |
| sound of noise | .02 / 1.32 | .01 / 1.22 |
| pictures backwards | .15 / 1.17 | .11 / 1.18 |

With 200 of the GRID clips: .46 / .81, another clip's sound .17 / 1.11 (GRID's sentences resemble one another).
Clips of 33 frames: .60 / .71, another clip's sound .23 / 1.10, so compare clips of one length.

Legend: B clips, K windows of a clip, M mel bands, h and w the picture's sides in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from streamchar.errors import DataError
from streamchar.evaluation.syncnet import SyncNet
from streamchar.evaluation.syncnet_config import SyncNetConfig
from streamchar.evaluation.syncnet_input import (
    log_mel,
    mouth_pictures,
    picture_windows,
    sound_windows,
    window_count,
)

Progress = Callable[[int, int, float], None]
"""Called after each step with its number from 1, the number of steps and its loss."""
JITTER = 3
"""Pixels by which training pictures are moved, each way."""
BLUR = (0.25, 0.5, 0.25)
TEMPERATURE = 0.07
"""At the start; it is learnt."""
WARM_UP = 20
WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class TrainingClip:
    """``pictures`` (F, h + 2 JITTER, w + 2 JITTER) uint8, ``mel`` (M, J), and how many ``windows`` both have."""

    pictures: Tensor
    mel: Tensor
    windows: int


@torch.enable_grad()  # evaluation as a whole runs without
def train_syncnet(clips: Iterable[tuple[NDArray[np.uint8], NDArray[np.floating]]], fps: float, sample_rate: int,
                  config: SyncNetConfig | None = None, seed: int = 0, progress: Progress | None = None,
                  device: str | torch.device = "cpu") -> SyncNet:
    """Train on clips of frames (F, H, W, 3) uint8 and sound (S,) that begin at the same instant.

    The clips are reduced one by one, so an iterator need never hold all of them; the result, in eval mode, is the same
    for the same seed, clips and number of threads on a CPU.

    Raises:
        DataError: when no two clips are long enough.
        InputError: when a clip is none, its sound is not at 16 kHz, or the configuration is wrong.
    """
    config = config or SyncNetConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SyncNet(config, fps).to(device)
    prepared = [_prepare(frames, sound, fps, sample_rate, config) for frames, sound in clips]
    usable = [clip for clip in prepared if clip.windows >= config.windows_per_clip]
    if len(usable) < 2:
        raise DataError(f"SyncNet got {len(prepared)} training clips of which {len(usable)} have at least "
                        f"{config.windows_per_clip} windows of 5 frames, 2 expected; give more or longer clips or a "
                        "smaller windows_per_clip")
    rng = np.random.default_rng(seed)
    scale = nn.Parameter(torch.tensor(-math.log(TEMPERATURE), device=device))
    optimizer = torch.optim.AdamW([*net.parameters(), scale], lr=config.lr, weight_decay=WEIGHT_DECAY)
    net.train()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        pictures, mel = draw_batch(usable, config, fps, rng)
        loss = contrastive_loss(net.see(pictures.to(device)), net.hear(mel.to(device)), scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step + 1, config.steps, float(loss.detach()))
    return net.eval()


def contrastive_loss(seen: Tensor, heard: Tensor, scale: Tensor) -> Tensor:
    """Mean InfoNCE in nats of unit vectors (B K, D) of which those with equal index belong together; both ways."""
    logits = seen @ heard.T * scale.exp()
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def draw_batch(clips: list[TrainingClip], config: SyncNetConfig, fps: float,
               rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (B K, 5, h, w) and log-mel (B K, M, 20) of K windows from each of B clips."""
    pictures, sounds = [], []
    for index in rng.choice(len(clips), min(config.clips_per_step, len(clips)), replace=False):
        clip = clips[index]
        first = torch.from_numpy(np.sort(rng.choice(clip.windows, config.windows_per_clip, replace=False)))
        pictures.append(vary_pictures(picture_windows(clip.pictures, first), config.height, config.width, rng))
        sounds.append(vary_sound(sound_windows(clip.mel, first, fps), rng))
    return torch.cat(pictures), torch.cat(sounds)


def vary_pictures(pictures: Tensor, height: int, width: int, rng: np.random.Generator) -> Tensor:
    """(K, 5, h + 2 JITTER, w + 2 JITTER) -> (K, 5, h, w): one move, flip, blur and light for all windows of a clip."""
    y, x = (int(i) for i in rng.integers(0, 2 * JITTER + 1, 2))
    out = pictures[..., y:y + height, x:x + width].float()
    if rng.random() < 0.5:
        out = out.flip(-1)
    kernel = torch.tensor(BLUR)
    for _ in range(max(int(rng.integers(-3, 4)), 0)):
        rim = F.pad(out.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
        out = F.conv2d(rim, (kernel[:, None] @ kernel[None])[None, None]).view_as(out)
    return (out - 128) * float(np.exp(rng.normal(0, 0.15))) + 128 + float(rng.normal(0, 12))


def vary_sound(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Log-mel (K, M, 20), one level for all windows of a clip and, sometimes, a noise floor."""
    out = mel + float(rng.normal(0, 0.5))
    if rng.random() < 0.3:
        out = torch.log(out.exp() + float(np.exp(rng.uniform(-7, -3))))
    return out


def _prepare(frames: NDArray[np.uint8], sound: NDArray[np.floating], fps: float, sample_rate: int,
             config: SyncNetConfig) -> TrainingClip:
    """A clip as it is kept: mouth pictures with a rim to be moved in, which lies outside the region measured later."""
    x0, y0, x1, y1 = config.region
    rim_x, rim_y = (x1 - x0) * JITTER / config.width, (y1 - y0) * JITTER / config.height
    wide = (max(x0 - rim_x, 0.0), max(y0 - rim_y, 0.0), min(x1 + rim_x, 1.0), min(y1 + rim_y, 1.0))
    pictures = mouth_pictures(frames, wide, config.height + 2 * JITTER, config.width + 2 * JITTER)
    mel = log_mel(np.asarray(sound), sample_rate, config.mels)
    return TrainingClip(pictures, mel, window_count(len(pictures), mel.shape[1], fps))
