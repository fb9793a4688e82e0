"""Whose voice it is: the GE2E speaker embedding of a local Resemblyzer file (Wan et al. 2018, arXiv 1710.10467).

The sound is raised to -30 dBFS, cut into windows of 1.6 s every 1/1.3 s (the last one zero-padded if the sound covers
three quarters of it), each window's 40 mel bands (25 ms every 10 ms) go through three LSTM layers of 256, a linear
layer and a rectifier to a unit vector; the voice is the windows' mean, again of unit length. All of this as published.
Resemblyzer also cuts silences longer than .2 s out with a voice activity detector of its own choice: that is left to
the caller, and both sides of a comparison should be treated alike.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamchar.errors import InputError
from streamchar.evaluation.slaney_mel import mel_power

SAMPLE_RATE = 16000
WINDOW, HOP, MELS = 400, 160, 40
PARTIAL = 160
"""Frames of one window of the embedding."""
STEP = round(SAMPLE_RATE / 1.3 / HOP)
COVERAGE = 0.75
LEVEL_DBFS = -30.0
HIDDEN = 256


class VoiceNetwork(nn.Module):
    """Mel frames (N, 160, 40) -> unit vectors (N, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, HIDDEN, 3, batch_first=True)
        self.linear = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, mel: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mel)
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=1)


class VoiceIdentity:
    """Speaker embeddings of sounds at 16 kHz.

    Args:
        path: a Resemblyzer state dict (``{"model_state": ...}``, or the state dict itself), any float type.

    Raises:
        InputError: when the file is missing or holds another network.
    """

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise InputError(f"voice embedding {path} does not exist; give the path of Resemblyzer's weights (.pt)")
        self._net = VoiceNetwork().eval()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("model_state", state)
            wanted = self._net.state_dict()
            self._net.load_state_dict({name: state[name].float() for name in wanted})
        except (KeyError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(f"voice embedding {path} is not a Resemblyzer state dict (three LSTM layers of 256 on 40 "
                             f"mel bands): {error}; give resemblyzer's pretrained.pt") from error

    @torch.no_grad()
    def embed(self, wave: NDArray[np.floating] | Tensor) -> NDArray[np.float64]:
        """(S,) in [-1, 1] at 16 kHz -> (256,) of unit length; nan for silence.

        Raises:
            InputError: if the sound is empty, not (S,) or not finite.
        """
        samples = np.asarray(wave, np.float64)
        if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
            raise InputError(f"a voice must be (samples,), finite and not empty, got {samples.shape}; give mono sound "
                             "at 16 kHz")
        loud = np.sqrt(np.mean(samples**2))
        if loud < 1e-6:
            return np.full(HIDDEN, np.nan)
        samples = samples * max(10 ** (LEVEL_DBFS / 20) / loud, 1.0)
        starts = window_starts(len(samples))
        samples = np.pad(samples, (0, max((starts[-1] + PARTIAL) * HOP - len(samples), 0)))
        mel = mel_power(samples, SAMPLE_RATE, WINDOW, HOP, MELS)
        parts = np.stack([mel[i:i + PARTIAL] for i in starts])  # (N, 160, 40)
        mean = self._net(torch.from_numpy(parts).float()).double().mean(0).numpy()
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


def window_starts(samples: int) -> list[int]:
    """First mel frames of the windows over so many samples: at least one, the last dropped if it is mostly padding."""
    frames = samples // HOP + 1
    starts = list(range(0, max(1, frames - PARTIAL + STEP + 1), STEP))
    covered = (samples - starts[-1] * HOP) / (PARTIAL * HOP)
    return starts[:-1] if covered < COVERAGE and len(starts) > 1 else starts


def similarity(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Cosine of two voices, 0 to 1 (the embedding has no negative values); nan where one of them is silence."""
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
