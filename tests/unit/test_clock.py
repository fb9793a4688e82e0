"""The clock is exact after hundreds of chunks, at awkward rates too."""

from __future__ import annotations

from fractions import Fraction

import pytest

from streamchar.clock import ChunkClock
from streamchar.errors import InputError


@pytest.mark.parametrize(("fps", "frames", "rate"), [(24.0, 33, 25.0), (25.0, 33, 50.0), (30000 / 1001, 17, 21.5)])
def test_no_drift_after_300_chunks(fps, frames, rate):
    clock = ChunkClock(fps, frames, rate, 16000)
    owned = sum(clock.audio_owned(k) for k in range(300))
    exact = clock.audio_per_chunk * 300
    assert 0 <= owned - exact < 1
    assert clock.chunk_start(300) == 300 * clock.chunk_seconds
    assert abs(float(clock.chunk_start(300)) - 300 * frames / fps) < 1e-6
    for k in (0, 1, 299):
        assert 0 <= clock.audio_offset(k) < 1 / rate
        assert clock.audio_owned(k) <= clock.audio_latents


def test_the_papers_chunk():
    clock = ChunkClock(24.0, 33, 25.0, 16000)
    assert clock.video_latents == 9 and clock.audio_per_chunk == Fraction(275, 8) and clock.audio_latents == 35


def test_sound_samples_are_never_lost():
    clock = ChunkClock(24.0, 33, 21.5, 22050)
    assert clock.sample_at(21500) == 22050 * 1000


@pytest.mark.parametrize("frames", [0, 2, 32])
def test_chunk_must_be_one_plus_four_n(frames):
    with pytest.raises(InputError, match="1 \\+ 4 n"):
        ChunkClock(25.0, frames, 25.0, 16000)
