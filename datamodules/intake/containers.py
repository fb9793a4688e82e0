"""Recordings as PyAV reads them: pictures at a constant rate and sound, both on one clock.

Second 0 is the first picture (of a sound file its first sample). A frame is shown from its own time to the next one's,
so frame i at the constant rate is whatever is shown at (i + 1/2) / fps; recordings of variable rate need no more. Sound
is put where its own time stamps say: late sound begins with silence, early sound is cut, gaps are filled.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.intake.rejection import Rejected
from datamodules.intake.tar_member import TarMember

SEEK_FROM_S = 20.0
"""Before this second a file is read from its start: seeking is inexact in MPEG program streams."""
SEEK_BACK_S = 2.0
GAP_S = 0.05
"""Time stamps of sound that disagree by less are rounding, not gaps."""
MAX_GAP_S = 3600.0
ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")
SAMPLE_BYTES = 4


@dataclass(frozen=True)
class Recording:
    """What a container says of itself. ``zero``: time stamp in seconds of the first picture, else of the sound;
    ``aspect``: width over height of a stored pixel."""

    path: Path
    has_video: bool
    has_sound: bool
    width: int
    height: int
    zero: float
    aspect: float = 1.0
    member: TarMember | None = None

    def medium(self) -> str | io.BytesIO:
        """What PyAV opens."""
        return medium(self.path, self.member)


def medium(path: Path, member: TarMember | None) -> str | io.BytesIO:
    """A file by its name, a member of a tar by its bytes."""
    return io.BytesIO(member.read(path)) if member else str(path)


def probe(path: Path, member: TarMember | None = None) -> Recording:
    """Open a file (or the ``member`` of a tar) and look at its streams; sizes are those shown (turned, with square
    pixels).

    Raises:
        Rejected: ``unreadable``, where it is no recording.
    """
    import av

    try:
        with av.open(medium(path, member), "r") as box:
            video = next((s for s in box.streams.video if not _is_cover(s)), None)
            sound = box.streams.audio[0] if box.streams.audio else None
            first: Any = None
            if video is not None:
                first = next(box.decode(video), None)
            elif sound is not None:
                first = next(box.decode(sound), None)
            if first is None and video is None and sound is None:
                raise Rejected("unreadable", "it holds neither pictures nor sound")
            zero = float(first.time or 0.0) if first is not None else 0.0
            seen = video is not None and first is not None
            aspect = float((video.sample_aspect_ratio if video is not None else None) or 1)
            size = picture(first, aspect).shape[:2] if seen else (0, 0)
            return Recording(path, seen, sound is not None, size[1], size[0], zero, aspect, member)
    except (av.FFmpegError, ValueError, OSError) as error:
        packed = path.suffix.lower() in ARCHIVES
        raise Rejected("unreadable", "an archive: unpack it beside the others" if packed else
                       getattr(error, "strerror", None) or str(error)) from error


def read_sound(recording: Recording, rate: int) -> NDArray[np.float32]:
    """Mono samples (S,) in [-1, 1] at ``rate``; damaged sound ends where the damage begins.

    Raises:
        Rejected: ``no sound``, where not one sample can be decoded.
    """
    import av

    if not recording.has_sound:
        raise Rejected("no sound", "the file has no sound track")
    samples = bytearray()  # grows in place: an hour takes 230 MB at 16 kHz
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    try:
        with av.open(recording.medium(), "r") as box:
            start: float | None = None
            for frame in box.decode(box.streams.audio[0]):
                time = float(frame.time) - recording.zero if frame.time is not None else None
                if start is None:
                    start = time or 0.0
                _fill(samples, time, start, rate)
                _append(samples, resampler.resample(frame))
            _append(samples, resampler.resample(None))
    except (av.FFmpegError, ValueError, OSError) as error:
        if not samples:
            raise Rejected("no sound", f"the sound cannot be decoded: {error}") from error
    if not samples:
        raise Rejected("no sound", "the sound track is empty")
    wave = np.frombuffer(samples, np.float32)
    early = round(-(start or 0.0) * rate)
    return np.pad(wave, (-early, 0)) if early < 0 else wave[early:]


def _fill(samples: bytearray, time: float | None, start: float, rate: int) -> None:
    """Silence where the next frame's time stamp lies later than the samples so far."""
    missing = time - start - len(samples) / SAMPLE_BYTES / rate if time is not None else 0.0
    # The resampler holds back a few samples, far fewer than a gap.
    if GAP_S < missing < MAX_GAP_S:
        samples += bytes(SAMPLE_BYTES * round(missing * rate))


def _append(samples: bytearray, frames: list[Any]) -> None:
    for frame in frames:
        samples += frame.to_ndarray().astype(np.float32, copy=False).tobytes()


class Pictures:
    """Frames (H, W, 3) uint8 RGB of a recording at a constant rate, one after another.

    Args:
        recording: from :func:`probe`.
        fps: the constant rate.
        first, stop: frame numbers at that rate; stop None = to the end.
        longest: longer side in pixels at most (for looking through a recording), or None for full size.

    Attributes:
        damage: after iteration, what stopped it before ``stop``; empty at a regular end.
    """

    def __init__(self, recording: Recording, fps: float, first: int = 0, stop: int | None = None,
                 longest: int | None = None) -> None:
        self.recording, self.fps, self.first, self.stop, self.longest = recording, fps, first, stop, longest
        self.damage = ""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        number, current, last = self.first, None, 0.0
        for time, frame in self._decoded():
            while current is not None and (number + 0.5) / self.fps < time and self._wants(number):
                yield picture(current, self.recording.aspect, self.longest)
                number += 1
            if not self._wants(number):
                return
            current, last = frame, time
        end = last + self._frame_s
        while current is not None and (number + 0.5) / self.fps < end and self._wants(number):
            yield picture(current, self.recording.aspect, self.longest)
            number += 1

    def _wants(self, number: int) -> bool:
        return self.stop is None or number < self.stop

    def _decoded(self) -> Iterator[tuple[float, Any]]:
        """(second, frame) of every decoded frame from a little before the first wanted one."""
        import av

        begin = self.first / self.fps
        try:
            with av.open(self.recording.medium(), "r") as box:
                stream = next(s for s in box.streams.video if not _is_cover(s))
                stream.thread_type = "NONE"  # recordings are shared among processes, not threads
                rate = float(stream.average_rate or 0) or self.fps
                self._frame_s = 1 / rate
                if begin > SEEK_FROM_S:
                    to = begin - SEEK_BACK_S + self.recording.zero
                    box.seek(int(to / float(stream.time_base or 1)), stream=stream, backward=True)
                time = begin - SEEK_BACK_S if begin > SEEK_FROM_S else 0.0
                for frame in box.decode(stream):
                    time = float(frame.time) - self.recording.zero if frame.time is not None else time + self._frame_s
                    yield time, frame
        except (av.FFmpegError, ValueError, OSError) as error:
            self.damage = str(error)

    _frame_s = 0.04


def picture(frame: Any, aspect: float = 1.0, longest: int | None = None) -> NDArray[np.uint8]:
    """A decoded frame as it is shown: RGB (H, W, 3) uint8, square pixels, turned as its matrix says.

    Args:
        aspect: width over height of a stored pixel.
        longest: longer side in pixels at most.
    """
    width, height = round(frame.width * aspect), frame.height
    scale = min(1.0, longest / max(width, height)) if longest else 1.0
    size = max(round(width * scale), 2), max(round(height * scale), 2)
    shown = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray()
    turns = round((frame.rotation or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(shown, turns)) if turns else shown


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is the cover picture of a sound file."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)
