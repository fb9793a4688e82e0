"""Features of published networks for Frechet distances (FID, FVD), from local TorchScript files; nothing is downloaded.

* Inception: ``inception-2015-12-05.pt`` as StyleGAN2-ADA and StyleGAN3 use it; uint8 frames of any size, 2048-d.
* I3D: ``i3d_torchscript.pt`` as StyleGAN-V uses it (Kinetics-400, before the softmax); 400-d of a clip.

``frechet.py`` shrinks covariances, which published FID and FVD do not: its numbers compare among themselves only.
Legend: F frames, N clips.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamchar.errors import InputError

BATCH = 16
MIN_CLIP = 10
"""Frames below which I3D's strides leave nothing."""


class InceptionFeatures:
    """Features of single frames.

    Args:
        path: ``inception-2015-12-05.pt``.
        device: where it runs.

    Raises:
        InputError: when the file is missing, no TorchScript, or takes other arguments.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self._net, self._device = _load(path, device, "inception-2015-12-05.pt of StyleGAN2-ADA", ("return_features",))

    @torch.no_grad()
    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        """(F, H, W, 3) uint8 -> (F, 2048) float32 on the CPU."""
        pictures = torch.from_numpy(_checked(frames)).permute(0, 3, 1, 2)
        return torch.cat([self._net(part.contiguous().to(self._device), return_features=True).float().cpu()
                          for part in pictures.split(BATCH)])


class I3DFeatures:
    """Features of clips: consecutive frames, cut into pieces that do not overlap.

    Args:
        path: ``i3d_torchscript.pt``.
        clip_frames: frames of a clip; 16 is what is mostly published. Compare features of one length only.
        device: where it runs.

    Raises:
        InputError: as :class:`InceptionFeatures`, or for clips of fewer than 10 frames.
    """

    def __init__(self, path: str | Path, clip_frames: int = 16, device: str = "cpu") -> None:
        if clip_frames < MIN_CLIP:
            raise InputError(f"I3D needs clips of at least {MIN_CLIP} frames, got clip_frames={clip_frames}")
        self.clip_frames = clip_frames
        self._net, self._device = _load(path, device, "i3d_torchscript.pt of StyleGAN-V",
                                        ("rescale", "resize", "return_features"))

    @torch.no_grad()
    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        """(F, H, W, 3) uint8 -> (N, 400) float32 on the CPU with N = F // clip_frames; frames left over are dropped.

        Raises:
            InputError: if there are fewer frames than one clip has.
        """
        count = len(_checked(frames)) // self.clip_frames
        if not count:
            raise InputError(f"I3D got {len(frames)} frames, clips have {self.clip_frames}; give longer clips or a "
                             f"smaller clip_frames (at least {MIN_CLIP})")
        parts = torch.from_numpy(frames[:count * self.clip_frames]).unflatten(0, (count, self.clip_frames))
        out = []
        for clip in parts:
            x = clip.permute(3, 0, 1, 2)[None].float().to(self._device)  # (1, 3, T, H, W), 0 to 255
            out.append(self._net(x, rescale=True, resize=True, return_features=True).float().cpu())
        return torch.cat(out)


def _checked(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise InputError(f"features are of frames (F, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
    return np.ascontiguousarray(frames)


def _load(path: str | Path, device: str, what: str, wanted: tuple[str, ...]) -> tuple[torch.jit.ScriptModule, str]:
    if not Path(path).is_file():
        raise InputError(f"feature network {path} does not exist; give the path of {what}")
    try:
        net = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"feature network {path} is not a TorchScript file ({first}); give {what}") from error
    takes = [argument.name for argument in net.forward.schema.arguments]
    missing = [name for name in wanted if name not in takes]
    if missing:
        raise InputError(f"feature network {path} takes {', '.join(takes[1:])}, not {', '.join(missing)}; give {what}")
    return net, device
