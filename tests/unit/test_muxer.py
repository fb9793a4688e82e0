"""The growing mp4: sound and picture stay together, and the file plays whenever the writer dies."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamchar.errors import InputError
from streamchar.streaming.muxer import ClipWriter, write_clip
from streamchar.streaming.reading import read_clip

FPS, RATE, CHUNK = 25, 16000, 33


def flashes(frames: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Dark frames with a bright one, and a click beginning with it, every 25 frames."""
    at = list(range(10, frames, 25))
    pictures = np.full((frames, 48, 64, 3), 40, np.uint8)
    sound = np.zeros(frames * RATE // FPS, np.float32)
    for f in at:
        pictures[f] = 230
        sound[f * RATE // FPS: f * RATE // FPS + 200] = 0.8 * np.sin(np.arange(200))
    return pictures, sound, at


def seen_and_heard(path: Path) -> tuple[list[int], list[float], int, int]:
    """Bright frames, click onsets in frames, number of frames, number of samples of a file."""
    frames, sound, fps = read_clip(path, RATE)
    assert fps == FPS
    loud = np.flatnonzero(np.abs(sound) > 0.3)
    onsets = loud[np.r_[True, np.diff(loud) > 1000]] if len(loud) else loud
    bright = [i for i, f in enumerate(frames) if f.mean() > 150]
    return bright, [float(o) * FPS / RATE for o in onsets], len(frames), len(sound)


def test_sound_and_picture_in_sync_though_sound_arrives_late(tmp_path: Path) -> None:
    pictures, sound, at = flashes(4 * CHUNK)
    out = tmp_path / "clip.mp4"
    with ClipWriter(out, (48, 64), FPS, RATE) as writer:
        position = 0
        for k in range(4):
            end = (k + 1) * CHUNK * RATE // FPS - 700  # a decoder's look-ahead
            writer.write(pictures[k * CHUNK:(k + 1) * CHUNK], sound[position:end])
            position = end
    bright, onsets, frames, samples = seen_and_heard(out)
    assert bright == at and frames == 4 * CHUNK
    assert samples == frames * RATE // FPS
    assert np.allclose(onsets, at, atol=0.1)  # a tenth of a frame


def test_playable_while_being_written(tmp_path: Path) -> None:
    pictures, sound, at = flashes(2 * CHUNK)
    out, copy = tmp_path / "clip.mp4", tmp_path / "copy.mp4"
    writer = ClipWriter(out, (48, 64), FPS, RATE)
    for k in range(2):
        part = slice(k * CHUNK, (k + 1) * CHUNK)
        writer.write(pictures[part], sound[part.start * RATE // FPS: part.stop * RATE // FPS])
        shutil.copy(out, copy)
        bright, onsets, frames, _ = seen_and_heard(copy)
        assert frames >= (k + 1) * CHUNK - 0.6 * FPS
        assert bright == [a for a in at if a < frames]
        assert np.allclose(onsets[:len(bright)], bright, atol=0.1)
    writer.close()


WRITER = """
import sys, numpy as np
from streamchar.streaming.muxer import ClipWriter
writer = ClipWriter(sys.argv[1], (48, 64), 25, 16000)
noise = np.random.default_rng(0)
try:
    for k in range(100000):
        writer.write(noise.integers(0, 255, (33, 48, 64, 3), np.uint8), np.full(21120, 0.1, np.float32))
        print(k, flush=True)
except KeyboardInterrupt:
    writer.close()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_file_plays_after_the_writer_was_killed(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "clip.mp4"
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    written = 0
    while written < 4:
        written = int(child.stdout.readline()) + 1
    child.send_signal(number)
    child.stdout.close()
    child.wait(timeout=60)
    frames, sound, _ = read_clip(out, RATE)
    assert len(frames) >= (written - 1) * CHUNK
    assert abs(len(sound) / RATE - len(frames) / FPS) < 0.2
    if number == signal.SIGINT:
        assert len(sound) == len(frames) * RATE // FPS


def test_no_sound_becomes_silence_and_an_unfinished_second_of_sound_is_cut(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", np.zeros((30, 32, 32, 3), np.uint8), np.zeros(0, np.float32), FPS, RATE)
    write_clip(tmp_path / "b.mp4", np.zeros((30, 32, 32, 3), np.uint8), np.ones(99999, np.float32), FPS, RATE)
    for name in "ab":
        frames, sound, _ = read_clip(tmp_path / f"{name}.mp4", RATE)
        assert (len(frames), len(sound)) == (30, 30 * RATE // FPS)


def test_bad_targets_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="even"):
        ClipWriter(tmp_path / "x.mp4", (33, 32), FPS, RATE)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out="):
        ClipWriter(tmp_path / "file" / "x.mp4", (32, 32), FPS, RATE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    from streamchar.errors import StreamCharError

    (tmp_path / "clip.mp4").symlink_to("/dev/full")
    noise = np.random.default_rng(0).integers(0, 255, (66, 64, 64, 3), np.uint8)
    with pytest.raises(StreamCharError, match="free space"), ClipWriter(tmp_path / "clip.mp4", (64, 64), 25, RATE) as w:
        w.write(noise, np.zeros(0, np.float32))
        w.write(noise, np.zeros(0, np.float32))
