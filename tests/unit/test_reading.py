"""Clips of others are read as they are shown: tracks that begin apart, frames that are missing, coarse time stamps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from datamodules.clip import decode_clip
from datamodules.quarantine import DamagedSample
from streamchar.errors import InputError
from streamchar.streaming.reading import evenly, frame_rate, read_clip

RATE = 16000
NTSC = Fraction(24000, 1001)


def clip(path: Path, times: list[int], base: Fraction, fps: Fraction, sound_at: float = 0.0) -> Path:
    """A picture at each time (in ``base``), as bright as its number at ``fps``, and three seconds of sound from
    ``sound_at`` on, with a click 1.5 s after its beginning."""
    av = pytest.importorskip("av")
    sound = np.zeros(3 * RATE, np.float32)
    sound[24000 - 160:24000 + 160] = 0.8
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=fps), out.add_stream("aac", rate=RATE, layout="mono")
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        video.time_base = video.codec_context.time_base = base
        packets = []
        for time in times:
            shade = round(float((time - times[0]) * base * fps)) * 3
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, base
            packets += video.encode(frame)
        packets += video.encode()
        for first in range(0, len(sound), 1024):
            part = np.pad(sound[first:first + 1024], (0, max(first + 1024 - len(sound), 0)))
            frame = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = round(sound_at * RATE) + first
            packets += audio.encode(frame)
        packets += audio.encode()
        for packet in sorted((p for p in packets if p.dts is not None), key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def click(sound: np.ndarray) -> float:
    return float(np.abs(sound).argmax()) / RATE


@pytest.mark.parametrize(("pictures_at", "sound_at", "heard"), [(0, 0.0, 1.5), (0, 0.5, 2.0), (10, 0.0, 1.1)])
def test_sound_begins_with_the_first_picture_wherever_the_tracks_begin(tmp_path: Path, pictures_at: int,
                                                                       sound_at: float, heard: float) -> None:
    at = clip(tmp_path / "a.mp4", list(range(pictures_at, pictures_at + 60)), Fraction(1, 25), Fraction(25), sound_at)
    frames, sound, fps = read_clip(at, RATE)
    assert (len(frames), fps) == (60, 25)
    assert click(sound) == pytest.approx(heard, abs=0.04)  # within a frame


@pytest.mark.parametrize("pictures", [True, False])
@pytest.mark.parametrize(("pictures_at", "sound_at", "heard"), [(0, 0.0, 1.5), (0, 0.5, 2.0), (10, 0.0, 1.1)])
def test_so_does_that_of_training_clips(tmp_path: Path, pictures_at: int, sound_at: float, heard: float,
                                        pictures: bool) -> None:
    at = clip(tmp_path / "a.mp4", list(range(pictures_at, pictures_at + 60)), Fraction(1, 25), Fraction(25), sound_at)
    files = {"mp4": at.read_bytes(), "json": b'{"text": "", "words": []}'}
    assert click(decode_clip("a", files, pictures=pictures).wave.numpy()) == pytest.approx(heard, abs=0.04)


def test_a_sound_track_that_begins_far_behind_the_pictures_is_damage(tmp_path: Path) -> None:
    at = clip(tmp_path / "a.mp4", list(range(60)), Fraction(1, 25), Fraction(25), sound_at=7.0)
    with pytest.raises(DamagedSample, match=r"begins 6\.\d+ s after the pictures, at most 5 s"):
        decode_clip("a", {"mp4": at.read_bytes(), "json": b'{"text": "", "words": []}'})


def test_a_frame_that_is_missing_moves_no_other(tmp_path: Path) -> None:
    times = [i * 40 for i in range(75) if i not in (10, 11, 12)]
    frames, sound, fps = read_clip(clip(tmp_path / "a.mp4", times, Fraction(1, 1000), Fraction(25)), RATE)
    assert (len(frames), fps, len(sound)) == (75, 25, 3 * RATE)
    shade = frames.mean((1, 2, 3)) / 3
    assert shade[20:] == pytest.approx(np.arange(20, 75), abs=1)
    assert shade[9:13] == pytest.approx([9] * 4, abs=1)  # the last one stays


def test_clips_of_one_nominal_rate_have_one_rate_whatever_their_time_stamps_round_to(tmp_path: Path) -> None:
    rates = set()
    for count in (50, 71):
        times = [round(i / NTSC * 600) for i in range(count)]
        frames, _, fps = read_clip(clip(tmp_path / f"{count}.mp4", times, Fraction(1, 600), NTSC), RATE)
        assert len(frames) == count
        rates.add(fps)
    assert rates == {float(NTSC)}


def test_the_average_rate_stands_where_the_nominal_one_is_far_from_it() -> None:
    assert frame_rate(Fraction(276480, 11533), NTSC) == float(NTSC)
    assert frame_rate(Fraction(30), Fraction(90000)) == 30
    assert frame_rate(None, Fraction(24)) == 24 and frame_rate(None, None) == 25


def test_frames_without_times_are_each_shown_once() -> None:
    assert evenly([0.0, None, 0.08], 25).tolist() == [0, 1, 2]
    assert evenly([0.0, 0.1, 0.11, 0.2], 10).tolist() == [0, 2, 3]


def test_a_broken_time_stamp_does_not_fill_the_memory() -> None:
    with pytest.raises(InputError, match="3 frames span 40000 s at 25 frames a second; encode the video anew"):
        evenly([0.0, 0.04, 40000.0], 25.0)
