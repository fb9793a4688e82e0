"""Lyra's speech codec (google/lyra, Apache-2.0) from local tflite files: continuous latents before the quantiser.

A frame of 20 ms is one 64-d vector; ``stack`` frames make a latent (2: 25 Hz x 128), normalised per dimension. The
network's files are kept as bytes in buffers, so a saved codec needs nothing else. Encoder and decoder are causal.
Legend: B batch, S samples, T latents, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from streamchar.codecs.fingerprint import fingerprint
from streamchar.errors import DataError, InputError

SAMPLE_RATE = 16000
FRAME = 320
WIDTH = 64
MEMORY = 64
"""Latest frames that fix the decoder's state; what came before has no influence (measured: it fades within 25)."""
FILES = {"encoder": "soundstream_encoder.tflite", "generator": "lyragan.tflite"}


class LyraCodec(nn.Module):
    """See :class:`streamchar.codecs.protocol.AudioCodec`. The network comes from ``load_files`` or a state dict.

    Args:
        stack: 20 ms frames per latent.
        sigma_floor: weakest divisor as a part of the strongest dimension's sigma.
    """

    kind = "lyra"
    sample_rate = SAMPLE_RATE
    lookahead = 0
    mean: Tensor
    scale: Tensor
    encoder: Tensor
    generator: Tensor

    def __init__(self, stack: int = 2, sigma_floor: float = 0.05) -> None:
        super().__init__()
        self.stack, self.sigma_floor = stack, sigma_floor
        self.channels = WIDTH * stack
        self.latent_rate = SAMPLE_RATE / (FRAME * stack)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("scale", torch.ones(WIDTH))
        for name in FILES:
            self.register_buffer(name, torch.zeros(0, dtype=torch.uint8))

    def load_files(self, folder: str | Path) -> None:
        """Read the two networks.

        Raises:
            InputError: if a file is missing.
        """
        for name, file in FILES.items():
            path = Path(folder) / file
            if not path.is_file():
                raise InputError(f"{path} does not exist; set codec.audio.path to the folder of the lyra tflite files")
            setattr(self, name, torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name in FILES:  # their sizes are known only now
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def settings(self) -> dict[str, Any]:
        """What the constructor needs to rebuild this codec."""
        return {"stack": self.stack, "sigma_floor": self.sigma_floor}

    @property
    def fingerprint(self) -> str:
        """sha256 over kind, settings and weights."""
        return fingerprint(self.kind, self.settings(), self.state_dict())

    def fit(self, waves: Iterable[Tensor]) -> LyraCodec:
        """Fit mean and sigma of every dimension on sounds (S,) at 16 kHz.

        Raises:
            DataError: if there are none long enough, or values are not finite.
        """
        frames = [self._frames(wave) for wave in waves if len(wave) >= FRAME]
        if not frames:
            raise DataError("the lyra codec cannot be normalised without sound; give it at least one clip")
        x = torch.cat(frames).double()
        if not torch.isfinite(x).all():
            raise DataError("the clips given to fit a codec hold NaN or infinite values; check the shards")
        sigma = x.std(0)
        self.mean.copy_(x.mean(0))
        self.scale.copy_(sigma.clamp(min=float(self.sigma_floor * sigma.max().clamp(min=1e-6))))
        return self

    def encode(self, wave: Tensor) -> Tensor:
        """(B, S) float in [-1, 1] -> (B, floor(S / (320 stack)), C).

        Raises:
            InputError: if ``wave`` is not (B, S).
        """
        if wave.ndim != 2:
            raise InputError(f"a sound must be (batch, samples), got {tuple(wave.shape)}; add the batch dimension")
        count = wave.shape[1] // (FRAME * self.stack)
        rows = [self._frames(w[:count * FRAME * self.stack]) for w in wave]
        x = (torch.stack(rows).to(self.mean) - self.mean) / self.scale  # (B, T*stack, 64)
        return x.reshape(len(wave), count, self.channels)

    def decoder(self) -> LyraDecoder:
        """A fresh streaming decoder."""
        return LyraDecoder(self)

    def decode(self, latents: Tensor) -> Tensor:
        """(T, C) -> (320 stack T,): one push of a fresh decoder."""
        return self.decoder().push(latents)

    def _frames(self, wave: Tensor) -> Tensor:
        """(S,) -> (floor(S/320), 64), from a fresh network state."""
        network = Network(self.encoder)
        samples = wave.detach().cpu().float().numpy()
        out = [network(samples[i:i + FRAME]) for i in range(0, len(samples) - FRAME + 1, FRAME)]
        return torch.from_numpy(np.stack(out)) if out else torch.zeros(0, WIDTH)


class LyraDecoder:
    """See :class:`streamchar.codecs.protocol.AudioDecoder`; works on the CPU without look-ahead."""

    def __init__(self, codec: LyraCodec) -> None:
        self.codec = codec
        self._network = Network(codec.generator)
        self._recent = torch.zeros(0, WIDTH)

    def push(self, latents: Tensor) -> Tensor:
        """(T, C) -> (320 stack T,).

        Raises:
            InputError: if the latents have another number of channels or are not finite.
        """
        if latents.ndim != 2 or latents.shape[1] != self.codec.channels:
            raise InputError(f"the sound decoder takes (T, {self.codec.channels}), got {tuple(latents.shape)}")
        if not torch.isfinite(latents).all():
            raise InputError("latents hold NaN or infinite values; the model that made them has diverged")
        x = latents.to(self.codec.mean).reshape(-1, WIDTH) * self.codec.scale + self.codec.mean
        x = x.detach().cpu().float()
        self._recent = torch.cat([self._recent, x])[-MEMORY:]
        sound = [self._network(row) for row in x.numpy()]
        return torch.from_numpy(np.concatenate(sound)) if sound else torch.zeros(0)

    def flush(self) -> Tensor:
        """Nothing is held back."""
        return torch.zeros(0)

    def state_dict(self) -> dict[str, Tensor]:
        """The latest frames: run through a fresh network they restore its state."""
        return {"recent": self._recent.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue a saved stream bit-identically."""
        self._network = Network(self.codec.generator)
        self._recent = state["recent"].clone()
        for row in self._recent.numpy():
            self._network(row)


class Network:
    """A stateful tflite network, fresh; one vector in, one out.

    Raises:
        InputError: if ai-edge-litert or the network's bytes are missing.
    """

    def __init__(self, content: Tensor) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise InputError("lyra needs ai-edge-litert; install the 'lyra' extra: pip install .[lyra]") from error
        if content.numel() == 0:
            raise InputError("the lyra codec has no network; set codec.audio.path to the folder of the tflite files")
        self._interpreter = Interpreter(model_content=content.cpu().numpy().tobytes(), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], vector.reshape(self._input["shape"]).astype(np.float32))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output).ravel().copy()
