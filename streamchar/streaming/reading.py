"""Reads sound and pictures back: any file that soundfile or PyAV can decode."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError

NOMINAL = 0.1
"""Share by which the average frame rate may differ from the nominal one, which frames that are left out explain."""
MOST_REPEATED = 20
"""Times that pictures may be repeated, on average, to fill the time between them; more is a broken time stamp."""


def read_sound(path: str | Path, sample_rate: int) -> NDArray[np.float32]:
    """Mono samples (S,) in [-1, 1] at ``sample_rate`` from a sound or video file.

    Raises:
        InputError: where the file is missing, cannot be decoded or holds no sound.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"sound file {path} does not exist; give a wav, flac, mp3 or mp4 with a voice")
    wave, rate, _ = _by_soundfile(path) or _by_av(path)
    if not len(wave):
        raise InputError(f"sound file {path} holds no samples; give a recording of at least a second of voice")
    return _at_rate(wave, rate, sample_rate)


def _at_rate(wave: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    import torch
    from torchaudio.functional import resample

    if rate != wanted:
        wave = resample(torch.from_numpy(np.ascontiguousarray(wave)), rate, wanted).numpy()
    return np.clip(wave, -1, 1).astype(np.float32)


def _by_soundfile(path: Path) -> tuple[NDArray[np.float32], int, float] | None:
    import soundfile

    try:
        wave, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError):
        return None
    return wave.mean(1), int(rate), 0.0


def _by_av(path: Path) -> tuple[NDArray[np.float32], int, float]:
    """Samples, their rate, and the second of the file's time at which they begin."""
    import av

    begin: float | None = None
    parts = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise InputError(f"{path} has no sound track; give a file with a voice")
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=stream.rate)
            for frame in container.decode(stream):
                begin = frame.time if begin is None else begin
                parts += [out.to_ndarray()[0] for out in resampler.resample(frame)]
            parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
            rate = int(stream.rate)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"cannot decode {path} as sound: {error}; give a wav, flac, mp3 or mp4") from error
    return (np.concatenate(parts) if parts else np.zeros(0, np.float32)), rate, begin or 0.0


def read_clip(path: str | Path, sample_rate: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
    """A clip's frames (F, H, W, 3) uint8, its sound (S,) at ``sample_rate`` (empty if it has none) and its fps.

    Both begin when the first picture is shown, and frame n is what is shown at n / fps, whenever the file's tracks
    begin and however unevenly its frames are spaced.

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
            fps = frame_rate(stream.average_rate, stream.guessed_rate)
            shown = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(stream)]
            has_sound = bool(container.streams.audio)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"cannot decode {path} as video: {error}; give an mp4") from error
    if not shown:
        raise InputError(f"{path} holds no frames")
    begin = shown[0][1] or 0.0
    frames = np.stack([shown[i][0] for i in evenly([t for _, t in shown], fps)])
    if not has_sound:
        return frames, np.zeros(0, np.float32), fps
    wave, rate, heard = _by_av(path)
    sound, late = _at_rate(wave, rate, sample_rate), round((heard - begin) * sample_rate)
    sound = np.pad(sound, (late, 0)) if late > 0 else sound[-late:]
    # AAC comes in blocks of 1024 samples: the last one may end after the picture does
    return frames, sound[:round(len(frames) / fps * sample_rate)], fps


def picture_bytes(path: str | Path) -> int:
    """What :func:`read_clip`'s frames will take, by the file's header; 0 where that tells nothing."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            told = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            count = max(stream.frames, round(told * frame_rate(stream.average_rate, stream.guessed_rate)))
            return count * 3 * stream.width * stream.height
    except (av.error.FFmpegError, OSError, IndexError):
        return 0


def frame_rate(average: Fraction | None, nominal: Fraction | None) -> float:
    """The nominal rate where the average confirms it: over a short clip the average is off by the rounding of its time
    stamps. Frames that come as they like have the average."""
    if average and nominal and abs(nominal / average - 1) < NOMINAL:
        return float(nominal)
    return float(average or nominal or 25)


def evenly(times: Sequence[float | None], fps: float) -> NDArray[np.int64]:
    """Which frame is shown at 0, 1, 2 ... frames after the first, from the seconds at which frames begin; each frame
    once where a file tells no times.

    Raises:
        InputError: where they lie so far apart that a time stamp must be broken.
    """
    if any(t is None for t in times):
        return np.arange(len(times))
    at = (np.asarray(times, np.float64) - float(times[0] or 0.0)) * fps
    count = int(round(at.max())) + 1
    if count > MOST_REPEATED * len(times):
        raise InputError(f"the time stamps of {len(times)} frames span {count / fps:.0f} s at {fps:g} frames a second; "
                         "encode the video anew")
    return np.maximum(np.searchsorted(np.maximum.accumulate(at), np.arange(count) + 0.5) - 1, 0)
