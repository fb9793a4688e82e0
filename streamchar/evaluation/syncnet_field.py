"""The field's SyncNet v2, whose confidence and distance papers print as Sync-C and Sync-D, from a local weights file.

Rebuilt from the layer shapes of the public ``syncnet_python`` release (Chung and Zisserman 2016, file
``syncnet_v2.model``, a state dict): pictures of 224 x 224 in BGR from 0 to 255, five at a time; 13 cepstra x 20 hops of
sound. NEVER COMPARED with published numbers or with the release itself: its weights were not at hand, so only shapes,
names and the cepstra were checked. Known differences to the release's pipeline: it finds and follows the face and cuts
it out with a margin of 40 % (here the frames must already be such face pictures), and it reads frames back from JPEG.
A second of video takes about four seconds on one CPU core.

Legend: F frames, N windows, D = 1024 embedding channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from streamchar.errors import CheckpointError, InputError
from streamchar.evaluation.speech_mfcc import speech_mfcc
from streamchar.evaluation.syncnet_offsets import FEWEST_WINDOWS, FRAMES, MAX_OFFSET, SyncNetScore, score_offsets

SIDE, FPS, SAMPLE_RATE, DIM = 224, 25, 16000, 1024
HOPS, HOPS_PER_FRAME = 20, 4
BLOCK = 10
"""Windows embedded at a time: the first layer's output takes 5 MB each."""


class FieldSyncNet(nn.Module):
    """The two towers; the children's names and order are those of the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_sound(1, 64, 3, 1), nn.MaxPool2d(1, 1), *_sound(64, 192, 3, 1), nn.MaxPool2d(3, (1, 2)),
            *_sound(192, 384, 3, 1), *_sound(384, 256, 3, 1), *_sound(256, 256, 3, 1), nn.MaxPool2d(3, 2),
            *_sound(256, 512, (5, 4), 0))
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_picture(3, 96, (FRAMES, 7, 7), 2, 0), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_picture(96, 256, (1, 5, 5), 2, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_picture(256, 256, (1, 3, 3), 1, 1), *_picture(256, 256, (1, 3, 3), 1, 1),
            *_picture(256, 256, (1, 3, 3), 1, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_picture(256, 512, (1, 6, 6), 1, 0))

    def see(self, pictures: Tensor) -> Tensor:
        """Pictures (3, F, 224, 224), BGR from 0 to 255 -> (F - 4, 1024), one per window.

        Only the first layer looks beyond one frame, so that a whole clip passes at once.
        """
        return self.netfclip(self.netcnnlip(pictures[None])[0, :, :, 0, 0].T)

    def hear(self, cepstra: Tensor) -> Tensor:
        """Cepstra (N, 13, 20) -> (N, 1024)."""
        return self.netfcaud(self.netcnnaud(cepstra[:, None]).flatten(1))


def load_field_syncnet(path: str | Path) -> FieldSyncNet:
    """Read ``syncnet_v2.model`` on the CPU, in eval mode; no code in the file is run.

    Raises:
        CheckpointError: if the file is missing, cannot be read, or its tensors are not this architecture's.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"SyncNet weights {path} do not exist; give the path of syncnet_v2.model of the "
                              "syncnet_python release")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"SyncNet weights {path} cannot be read: {error}; "
                              "fetch syncnet_v2.model again") from error
    net = FieldSyncNet()
    own = net.state_dict()
    given = state if isinstance(state, dict) else {}
    # files of PyTorch before 0.4.1 have no such counters, and nothing reads them
    wrong = [f"{k} is missing" for k in own if k not in given and not k.endswith("num_batches_tracked")]
    wrong += [f"{k} is unknown" for k in given if k not in own]
    wrong += [f"{k} has shape {tuple(v.shape)}, expected {tuple(own[k].shape)}" for k, v in given.items()
              if k in own and tuple(v.shape) != tuple(own[k].shape)]
    if wrong:
        raise CheckpointError(f"{path} is no state dict of SyncNet v2: {'; '.join(wrong[:3])} ({len(wrong)} in all); "
                              "give syncnet_v2.model of the syncnet_python release")
    net.load_state_dict(given, strict=False)
    return net.eval()


@torch.no_grad()
def field_sync_distance(net: FieldSyncNet, frames: NDArray[np.uint8], sound: NDArray[np.floating], fps: float,
                        sample_rate: int) -> SyncNetScore:
    """Sync of one clip as ``syncnet_python`` measures it, frames (F, H, W, 3) uint8 of a face and sound (S,).

    Frames at another rate than 25 fps are repeated or left out, as ffmpeg does for the release.

    Raises:
        InputError: when the clip is too short, its frames are no pictures, or its sound is not at 16 kHz.
    """
    if sample_rate != SAMPLE_RATE:
        raise InputError(f"SyncNet v2 hears sound at {SAMPLE_RATE} Hz, got {sample_rate}; resample it")
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise InputError(f"frames have shape {frames.shape} and type {frames.dtype}, expected (F, H, W, 3) uint8")
    frames = frames[np.minimum((np.arange(int(len(frames) / fps * FPS)) * fps / FPS).round().astype(int),
                               len(frames) - 1)]
    windows = min(len(frames), len(sound) * FPS // SAMPLE_RATE) - FRAMES  # one fewer than there are, as the release
    if windows < FEWEST_WINDOWS:
        raise InputError(f"a clip of {max(windows + FRAMES, 0)} frames with sound is too short for sync, at least "
                         f"{FEWEST_WINDOWS + FRAMES} expected; use longer clips")
    device = next(net.parameters()).device
    cepstra = torch.from_numpy(speech_mfcc(sound, sample_rate)).float()
    seen, heard = [], []
    for first in range(0, windows, BLOCK):
        last = min(first + BLOCK, windows)
        seen.append(net.see(face_pictures(frames[first:last + FRAMES - 1]).to(device)).cpu())
        starts = torch.arange(first, last)[:, None] * HOPS_PER_FRAME + torch.arange(HOPS)
        heard.append(net.hear(cepstra.T[starts].mT.to(device)).cpu())
    return score_offsets(torch.cat(seen), torch.cat(heard), MAX_OFFSET, zero_padded=True)


def face_pictures(frames: NDArray[np.uint8]) -> Tensor:
    """(F, H, W, 3) RGB uint8 -> (3, F, 224, 224) BGR, 0 to 255."""
    bgr = torch.from_numpy(np.ascontiguousarray(frames[..., ::-1])).permute(0, 3, 1, 2).float()
    return F.interpolate(bgr, size=(SIDE, SIDE), mode="bilinear", align_corners=False).transpose(0, 1)


def _sound(inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int) -> Sequence[nn.Module]:
    return nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _picture(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int,
             padding: int) -> Sequence[nn.Module]:
    return (nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), (0, padding, padding)), nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True))


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, DIM))
