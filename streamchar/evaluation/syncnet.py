"""Our SyncNet: a small network that says whether a mouth goes with a sound, trained by the project on its own clips.

After Chung and Zisserman (2016): two towers embed five frames of the mouth and the 0.2 s of sound under them. The
numbers are OURS: embeddings are unit vectors, so distances lie in [0, 2], and they depend on the clips the network was
trained on. They are not the Sync-C and Sync-D of papers (:mod:`.syncnet_field` has that architecture) and compare only
clips of about one length measured with one and the same network. What to expect of them: see
:mod:`.syncnet_training`.

Legend: N windows, D embedding channels, M mel bands, h and w the picture's sides in pixels.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from streamchar.errors import CheckpointError, InputError
from streamchar.evaluation.syncnet_config import SyncNetConfig
from streamchar.evaluation.syncnet_input import (
    HOPS,
    log_mel,
    mouth_pictures,
    picture_windows,
    sound_windows,
    window_count,
)
from streamchar.evaluation.syncnet_offsets import FRAMES, MAX_OFFSET, SyncNetScore, score_offsets

FORMAT = 1
FPS_TOLERANCE = 0.1
"""Share by which a clip's frame rate may differ from that of the training clips: 24 and 25 go together, 25 and 50 do
not."""
BLOCK = 256
"""Windows embedded at a time, which bounds the memory of long streams."""


class SyncNet(nn.Module):
    """The two towers.

    Args:
        config: sizes.
        fps: frame rate of the training clips.

    Raises:
        InputError: when the sizes make no network.
    """

    fps: Tensor

    def __init__(self, config: SyncNetConfig, fps: float = 25.0) -> None:
        super().__init__()
        if found := config.problems():
            raise InputError("; ".join(found))
        self.config = config
        self.register_buffer("fps", torch.tensor(float(fps)))
        c, rows, columns = config.channels, -(-config.height // 16), -(-config.width // 16)
        self.eye = nn.Sequential(
            _layer(nn.Conv2d(FRAMES, c, 5, 2, 2, bias=False)), _layer(nn.Conv2d(c, 2 * c, 3, 2, 1, bias=False)),
            _layer(nn.Conv2d(2 * c, 4 * c, 3, 2, 1, bias=False)), _layer(nn.Conv2d(4 * c, 4 * c, 3, 2, 1, bias=False)),
            nn.Flatten(), *_head(4 * c * rows * columns, config.dim))
        # Bands as channels: worth a little less per step than two-dimensional layers, but a step takes two thirds of
        # the time, which larger pictures repay.
        self.ear = nn.Sequential(
            _layer(nn.Conv1d(config.mels, 128, 3, 1, 1, bias=False)), _layer(nn.Conv1d(128, 128, 3, 2, 1, bias=False)),
            _layer(nn.Conv1d(128, 192, 3, 2, 1, bias=False)), nn.Flatten(), *_head(192 * HOPS // 4, config.dim))

    def see(self, pictures: Tensor) -> Tensor:
        """Grey pictures (N, 5, h, w), 0 to 255 -> (N, D) unit vectors."""
        return F.normalize(self.eye((pictures.float() - 128) / 64), dim=-1)

    def hear(self, mel: Tensor) -> Tensor:
        """Log-mel windows (N, M, 20) -> (N, D) unit vectors."""
        return F.normalize(self.ear((mel + 3) / 2), dim=-1)

    def check_fps(self, fps: float) -> None:
        """Refuse clips of another frame rate.

        Raises:
            InputError: naming both.
        """
        trained = float(self.fps)
        if abs(fps / trained - 1) > FPS_TOLERANCE:
            raise InputError(f"the clip has {fps:g} fps, this SyncNet was trained at {trained:g}; convert the clip or "
                             "train a SyncNet on clips of its rate")


def _layer(convolution: nn.Conv1d | nn.Conv2d) -> nn.Sequential:
    norm = nn.BatchNorm2d if isinstance(convolution, nn.Conv2d) else nn.BatchNorm1d
    return nn.Sequential(convolution, norm(convolution.out_channels), nn.ReLU(inplace=True))


def _head(channels: int, dim: int) -> tuple[nn.Module, ...]:
    return nn.Linear(channels, 256), nn.BatchNorm1d(256), nn.ReLU(inplace=True), nn.Linear(256, dim)


@torch.no_grad()
def sync_distance(net: SyncNet, frames: NDArray[np.uint8], sound: NDArray[np.floating], fps: float,
                  sample_rate: int, max_offset: int = MAX_OFFSET) -> SyncNetScore:
    """Sync of one clip, frames (F, H, W, 3) uint8 and sound (S,) that begin at the same instant.

    Raises:
        InputError: when the clip is too short, its sound not at 16 kHz, or its frame rate not the network's.
    """
    net.check_fps(fps)
    config, device = net.config, net.fps.device
    pictures = mouth_pictures(frames, config.region, config.height, config.width)
    mel = log_mel(np.asarray(sound), sample_rate, config.mels)
    first = torch.arange(max(window_count(len(pictures), mel.shape[1], fps), 0))
    training = net.training
    net.eval()
    seen = [net.see(picture_windows(pictures, part).to(device)).cpu() for part in first.split(BLOCK)]
    heard = [net.hear(sound_windows(mel, part, fps).to(device)).cpu() for part in first.split(BLOCK)]
    net.train(training)
    return score_offsets(torch.cat(seen), torch.cat(heard), max_offset)


def save_syncnet(net: SyncNet, folder: str | Path) -> None:
    """Write ``model.safetensors`` and ``config.json``; the config comes last and marks the folder complete."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    config = {"format": FORMAT, "syncnet": asdict(net.config)}
    for name, write in (("model.safetensors", lambda p: save_file(weights, str(p))),
                        ("config.json", lambda p: p.write_text(json.dumps(config, indent=1) + "\n"))):
        temporary = folder / (name + ".partial")
        write(temporary)
        temporary.replace(folder / name)


def load_syncnet(folder: str | Path) -> SyncNet:
    """Read what :func:`save_syncnet` wrote, on the CPU, in eval mode.

    Raises:
        CheckpointError: if files are missing, damaged or of another version.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        if config["format"] != FORMAT:
            raise ValueError(f"format {config['format']!r}, this version reads {FORMAT}")
        values = config["syncnet"] | {"region": tuple(config["syncnet"]["region"])}
        net = SyncNet(SyncNetConfig(**values))
        net.load_state_dict(load_file(str(folder / "model.safetensors")))
    except FileNotFoundError as error:
        raise CheckpointError(f"no SyncNet in {folder} ({Path(str(error.filename)).name} is missing); "
                              "train one") from error
    except Exception as error:
        raise CheckpointError(f"the SyncNet in {folder} cannot be read: {error}; train it again") from error
    return net.eval()
