"""The prompt that a run has of its own: picture and voice of a held-out character.

Preparation writes one (``prepare/prompt/``). A run on given shards has none; its prompt is then decoded from the first
held-out clip's stored latents, so that it needs neither the shards nor the data directory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from datamodules.latent_shards import LatentStore
from pipelines.run_directory import RunDirectory
from streamchar.clock import ChunkClock
from streamchar.codecs.protocol import AudioCodec, VideoCodec
from streamchar.errors import DataError

FILES = ("face.png", "voice.wav")


def own_prompt(directory: RunDirectory, clock: ChunkClock, video_codec: VideoCodec, audio_codec: AudioCodec,
               into: Path) -> tuple[Path | None, Path | None]:
    """(picture, sound file) of the run's own character, or (None, None) where the run has no data at all.

    Args:
        into: folder in which a prompt decoded from latents is written.
    """
    prepared = directory.stage("prepare") / "prompt"
    if all((prepared / name).is_file() for name in FILES):
        return prepared / FILES[0], prepared / FILES[1]
    for split in ("val", "train"):
        try:
            store = LatentStore(directory.stage("encode") / "latents" / split, clock)
        except DataError:
            continue
        clip = next((c for c in store.clips if c.record.has_video and c.record.timed), None)
        if clip is None:
            continue
        with torch.no_grad():
            frames = video_codec.decode(torch.from_numpy(clip.video(0)[:1].astype(np.float32)))
            wave = audio_codec.decode(torch.from_numpy(clip.audio(0).astype(np.float32)))
        wave = wave[:int(clip.record.seconds * audio_codec.sample_rate)]
        return _write(into, frames[0, 0], wave, audio_codec.sample_rate)
    return None, None


def _write(folder: Path, picture: torch.Tensor, wave: torch.Tensor, sample_rate: int) -> tuple[Path, Path]:
    import soundfile
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(folder / FILES[0])
    soundfile.write(str(folder / FILES[1]), wave.float().cpu().numpy(), sample_rate)
    return folder / FILES[0], folder / FILES[1]
