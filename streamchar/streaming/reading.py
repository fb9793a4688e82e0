"""Reads sound and pictures back: any file that soundfile or PyAV can decode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError


def read_sound(path: str | Path, sample_rate: int) -> NDArray[np.float32]:
    """Mono samples (S,) in [-1, 1] at ``sample_rate`` from a sound or video file.

    Raises:
        InputError: where the file is missing, cannot be decoded or holds no sound.
    """
    import torch
    from torchaudio.functional import resample

    path = Path(path)
    if not path.is_file():
        raise InputError(f"sound file {path} does not exist; give a wav, flac, mp3 or mp4 with a voice")
    wave, rate = _by_soundfile(path) or _by_av(path)
    if not len(wave):
        raise InputError(f"sound file {path} holds no samples; give a recording of at least a second of voice")
    if rate != sample_rate:
        wave = resample(torch.from_numpy(np.ascontiguousarray(wave)), rate, sample_rate).numpy()
    return np.clip(wave, -1, 1).astype(np.float32)


def _by_soundfile(path: Path) -> tuple[NDArray[np.float32], int] | None:
    import soundfile

    try:
        wave, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError):
        return None
    return wave.mean(1), int(rate)


def _by_av(path: Path) -> tuple[NDArray[np.float32], int]:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise InputError(f"{path} has no sound track; give a file with a voice")
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=stream.rate)
            parts = [out.to_ndarray()[0] for frame in container.decode(stream) for out in resampler.resample(frame)]
            parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
            rate = int(stream.rate)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"cannot decode {path} as sound: {error}; give a wav, flac, mp3 or mp4") from error
    return (np.concatenate(parts) if parts else np.zeros(0, np.float32)), rate


def read_clip(path: str | Path, sample_rate: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
    """A clip's frames (F, H, W, 3) uint8, its sound (S,) at ``sample_rate`` (empty if it has none) and its fps.

    Raises:
        InputError: where the file is missing or cannot be decoded as video.
    """
    import av

    path = Path(path)
    if not path.is_file():
        raise InputError(f"video file {path} does not exist")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no picture track; give an mp4")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 25)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            has_sound = bool(container.streams.audio)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"cannot decode {path} as video: {error}; give an mp4") from error
    if not frames:
        raise InputError(f"{path} holds no frames")
    sound = read_sound(path, sample_rate) if has_sound else np.zeros(0, np.float32)
    # AAC comes in blocks of 1024 samples: the last one may end after the picture does
    return np.stack(frames), sound[:round(len(frames) / fps * sample_rate)], fps
