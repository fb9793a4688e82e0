"""Silero's voice activity detector as a torch module, with weights from a local ``silero_vad_16k.safetensors``.

A learned short-time spectrum, four convolutions and an LSTM (snakers4/silero-vad, version 5). Steps of 32 ms, each seen
with the 4 ms before it. Many steps of a sound go through the convolutions together.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamchar.errors import InputError

SAMPLE_RATE = 16000
STEP = 512
CONTEXT = 64
STEPS_AT_ONCE = 4096


class SileroVad(nn.Module):
    """Probability of speech in every 32 ms of a sound."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.final_conv = nn.Conv1d(128, 1, 1)

    @classmethod
    def load(cls, path: str | Path) -> SileroVad:
        """Read the published weights.

        Raises:
            InputError: if the file is missing or of another model.
        """
        from safetensors.torch import load_file

        if not Path(path).is_file():
            raise InputError(f"voice activity detector {path} does not exist; give silero_vad_16k.safetensors of the "
                             "snakers4/silero-vad repository as intake.vad=FILE")
        model = cls()
        try:
            weights = {_renamed(name): value for name, value in load_file(str(path)).items()}
            model.load_state_dict(weights)
        except Exception as error:
            raise InputError(f"voice activity detector {path} cannot be loaded: {error}; expected "
                             "silero_vad_16k.safetensors (version 5, 16 kHz)") from error
        return model.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        """(S,) at 16 kHz -> (ceil(S / 512),) probabilities, 0 to 1."""
        found, memory = [torch.zeros(0)], None
        for begin in range(0, len(wave), STEPS_AT_ONCE * STEP):
            part = wave[max(begin - CONTEXT, 0):begin + STEPS_AT_ONCE * STEP].float()
            before = CONTEXT if begin == 0 else 0
            steps = -(-(len(part) + before - CONTEXT) // STEP)
            part = F.pad(part, (before, CONTEXT + steps * STEP - before - len(part)))
            hidden, memory = self.lstm(self._features(part.unfold(0, STEP + CONTEXT, STEP))[None], memory)
            found.append(torch.sigmoid(self.final_conv(F.relu(hidden[0])[..., None]))[:, 0, 0])
        return torch.cat(found)

    def _features(self, x: Tensor) -> Tensor:
        """(N, 576) -> (N, 128)."""
        spectrum = self.stft_conv(F.pad(x[:, None], (0, CONTEXT), mode="reflect"))
        x = torch.sqrt(spectrum[:, :129] ** 2 + spectrum[:, 129:] ** 2)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(layer(x))
        return x.mean(-1)  # one column is left


def _renamed(name: str) -> str:
    """The published names of an LSTM cell as those of a layer."""
    return f"lstm.{name.removeprefix('lstm_cell.')}_l0" if name.startswith("lstm_cell.") else name
