"""Measures that need no network, on cases whose answer is known, and on those who would cheat."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from streamchar.errors import InputError
from streamchar.evaluation.drift import drift_score
from streamchar.evaluation.energy import energy_distance
from streamchar.evaluation.frechet import chunk_features, frechet_distance
from streamchar.evaluation.identity import appearance, calibrate, identity_distance
from streamchar.evaluation.pointer_error import mean_words_per_chunk, pointer_score, true_positions
from streamchar.evaluation.strip import strip_image
from streamchar.evaluation.sync import DETAIL_S, log_energy, mean_score, sync_score
from streamchar.transcript import Word

FPS, RATE, FRAMES = 25, 16000, 200


def talk(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A mouth's opening (F,) and a sound whose level follows it."""
    rng = np.random.default_rng(seed)
    mouth = np.convolve(rng.random(FRAMES + 8), np.hanning(9), "valid")
    mouth = np.clip((mouth - mouth.min()) / np.ptp(mouth), 0, 1)
    level = np.repeat(mouth, RATE // FPS)
    return mouth, (level * rng.standard_normal(len(level)) * 0.2).astype(np.float32)


def test_sync_finds_the_lag_and_its_sign() -> None:
    mouth, sound = talk()
    assert sync_score(mouth, sound, FPS, RATE).lag == 0
    late = np.roll(mouth, 3)
    score = sync_score(late, sound, FPS, RATE)
    assert score.lag == 3 and score.best > 0.8 and score.zero < score.best
    assert sync_score(np.roll(mouth, -5), sound, FPS, RATE).lag == -5


def test_sync_is_not_fooled_by_a_still_picture_or_by_another_sentence() -> None:
    mouth, sound = talk()
    still = sync_score(np.full(FRAMES, 0.3), sound, FPS, RATE)
    assert np.isnan(still.lag) and still.margin == 0
    strangers = [sync_score(talk(i)[0], talk(i + 50)[1], FPS, RATE) for i in range(12)]
    friends = [sync_score(*talk(i), FPS, RATE) for i in range(12)]
    assert mean_score(strangers).best < 0.3 < 0.8 < mean_score(friends).best
    assert mean_score([still, *friends]).lag == 0  # clips without a signal are left out
    assert np.isnan(mean_score([still]).lag)


def test_a_mouth_that_only_opens_while_there_is_sound_passes_the_plain_measure_and_fails_the_fast_one() -> None:
    plain, fast, honest = [], [], []
    for i in range(8):
        rng = np.random.default_rng(i)
        mouth, sound = talk(i)
        quiet = np.r_[np.zeros(60), np.ones(80), np.zeros(60)]
        sound = sound * np.repeat(quiet, RATE // FPS)
        flapping = quiet * np.abs(np.sin(np.arange(FRAMES) * 1.3 + rng.uniform(0, 6)))
        plain.append(sync_score(flapping, sound, FPS, RATE))
        fast.append(sync_score(flapping, sound, FPS, RATE, detail_s=DETAIL_S))
        honest.append(sync_score(mouth * quiet, sound, FPS, RATE, detail_s=DETAIL_S))
    assert mean_score(plain).best > 0.5  # half of the score for nothing but opening in time
    assert mean_score(fast).best < 0.3 < 0.5 < mean_score(honest).best


def test_log_energy_has_a_floor_and_survives_short_sound() -> None:
    level = log_energy(np.r_[np.ones(640), np.zeros(100)], 5, FPS, RATE)
    assert level.shape == (5,) and level[0] - level[1:].min() == pytest.approx(40)
    with pytest.raises(InputError, match="40 frames"):
        sync_score(np.zeros(10), np.zeros(100), FPS, RATE)


def faces(hue: tuple[int, int, int], frames: int = 60, fade: float = 0.0, seed: int = 0) -> np.ndarray:
    """A disc of one colour that sways and blinks over noise; ``fade`` moves its colour over time."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48]
    out = np.full((frames, 48, 48, 3), 200.0)
    for f in range(frames):
        disc = (x - 24 - 2 * np.sin(f / 7)) ** 2 + (y - 24) ** 2 < 260
        out[f][disc] = np.array(hue) + fade * f
        out[f] += rng.normal(0, 4, out[f].shape)
    return np.clip(out, 0, 255).astype(np.uint8)


def test_identity_is_near_for_the_same_face_and_far_for_another() -> None:
    hues = [(220, 170, 140), (120, 80, 60), (250, 210, 190), (90, 120, 200)]
    clips = [faces(h, seed=i) for i, h in enumerate(hues)]
    scale = calibrate(clips)
    assert scale.same < 0.4 * scale.different
    same = identity_distance(faces(hues[0], seed=9), clips[0][0])
    other = identity_distance(faces(hues[1], seed=9), clips[0][0])
    assert scale.relative(same) < 0.3 and scale.relative(other) > 0.5
    assert identity_distance(clips[0][:1], clips[0][0]) == 0


def test_a_long_window_is_not_held_in_floats() -> None:
    frames = np.repeat(faces((220, 170, 140), 20), 20, axis=0)
    tracemalloc.start()
    try:
        features = appearance(frames)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(features) == 400 and (features[::20] == appearance(frames[::20])).all()
    assert peak < frames.size * 4  # in float64 it is eight times as large


def test_drift_sees_a_face_that_changes_colour_and_not_one_that_sways() -> None:
    steady = drift_score(faces((200, 150, 120), 300), FPS, 1.32)
    fading = drift_score(faces((200, 150, 120), 300, fade=-0.3), FPS, 1.32)
    assert abs(steady.slope) < 0.02 and abs(steady.gain) < 0.01
    assert fading.slope > 5 * abs(steady.slope) and fading.gain > 5 * abs(steady.gain)
    assert fading.last == pytest.approx(fading.curve[-1][1])
    assert np.isnan(drift_score(faces((1, 2, 3), 40), FPS, 1.32).slope)


def test_pointer_error_and_the_guess_beside_it() -> None:
    words = [Word(f"w{i}", 0.5 + i * 0.4, 0.9 + i * 0.4) for i in range(5)]
    true = true_positions(words, 3, 1.0)
    assert true == pytest.approx([1.25, 3.75, 5.0])
    start = np.r_[0.0, true[:-1]]
    score = pointer_score(true + 0.1, true, start, [5, 5, 5], words_per_chunk=2.0)
    assert score.error == pytest.approx(0.1) and score.bias == pytest.approx(0.1)
    assert score.guess == pytest.approx((0.75 + 0.5 + 0.0) / 3) and score.ratio == pytest.approx(0.1 / score.guess)
    assert mean_words_per_chunk([words], [4.0], 1.0) == pytest.approx(5 / 2.5)
    ended = pointer_score([5.0], [5.0], [5.0], [5.0], 2.0)
    assert ended.chunks == 0 and np.isnan(ended.error)


def test_frechet_is_zero_for_equal_sets_exact_for_a_shift_and_sane_with_few_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2000, 4, generator=generator)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + torch.tensor([3.0, 0, 0, 0])) == pytest.approx(9, rel=1e-6)
    assert frechet_distance(a, 2 * a) == pytest.approx(4, rel=0.1)  # (2 - 1)^2 per dimension
    few = torch.randn(6, 64, generator=generator)
    near, far = torch.randn(6, 64, generator=generator), 3 + torch.randn(6, 64, generator=generator)
    assert 0 < frechet_distance(few, near) < 0.5 * frechet_distance(few, far)
    with pytest.raises(InputError, match="N, M >= 2"):
        frechet_distance(a[:1], a)
    with pytest.raises(InputError, match="non-finite"):
        frechet_distance(a * float("nan"), a)


def test_chunk_features_tell_still_from_moving() -> None:
    video, audio = torch.randn(3, 5, 4, 6, 6), torch.randn(3, 10, 7)
    v, s = chunk_features(video, audio)
    assert v.shape == (3, 20) and s.shape == (3, 21)
    still, _ = chunk_features(video[:, :, :1].expand(-1, -1, 4, -1, -1), audio)
    assert still[:, -5:].abs().max() == 0 < v[:, -5:].min()


def test_strip_shows_frames_and_wave() -> None:
    frames = np.zeros((50, 32, 32, 3), np.uint8)
    frames[..., 0] = np.linspace(0, 255, 50).astype(np.uint8)[:, None, None]
    page = strip_image(frames, np.r_[np.zeros(16000), np.tile([0.5, -0.5], 8000)], FPS, count=5, height=64)
    assert isinstance(page, Image.Image)
    pixels = np.asarray(page).astype(int)
    reds = [pixels[30, 4 + i * 68 + 32, 0] for i in range(5)]
    assert reds == sorted(reds) and reds[-1] - reds[0] > 150
    wave = (np.abs(pixels[72:72 + 64] - np.array([46, 110, 160])).sum(2) < 10).sum(0)
    assert wave[page.width // 2 + 8: -8].min() > wave[8: page.width // 2 - 8].max()


def test_energy_distance_is_zero_for_equal_laws_and_sees_blur_and_bias() -> None:
    g = torch.Generator().manual_seed(0)

    def draws(spread: float, shift: float = 0.0) -> torch.Tensor:
        return shift + spread * torch.randn(2, 400, 50, generator=g)

    reference = draws(1.0)
    alike, blurred, biased = (float(energy_distance(x, reference).mean())
                              for x in (draws(1.0), draws(0.0), draws(1.0, 0.5)))
    assert abs(alike) < 0.01 and blurred > 0.4 and biased > 0.1
    # Two plain points: across 3, within 0, hence 2 * 3.
    assert float(energy_distance(torch.zeros(2, 1, 4), torch.full((2, 1, 4), 3.0))) == 6.0
    with pytest.raises(InputError, match="two draws"):
        energy_distance(torch.zeros(3, 1, 4), torch.zeros(3, 1, 4))
