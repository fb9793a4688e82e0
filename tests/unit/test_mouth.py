"""The mouth is measured from pixels: validated on drawn characters that the detector has never seen."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter

from datamodules.puppet.identity import make_identity
from datamodules.puppet.performance import perform
from datamodules.puppet.puppet import render
from datamodules.puppet.speech import Span
from datamodules.puppet.visemes import TABLE
from streamchar.errors import DataError
from streamchar.evaluation.mouth import PuppetMouth, agreement
from streamchar.evaluation.sync import sync_score

FPS, FRAMES, SIZE = 25.0, 80, 48


def puppet(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A puppet's frames and true opening while it says random phones with pauses."""
    rng = np.random.default_rng(seed)
    names, phones, at = list(TABLE), [], 0.2
    while at < FRAMES / FPS - 0.3:
        length = rng.uniform(0.05, 0.16)
        phones.append(Span(("\u02c8" if rng.random() < 0.3 else "") + str(rng.choice(names)), at, at + length))
        at += length + (rng.uniform(0.2, 0.5) if rng.random() < 0.08 else 0.0)
    play = perform(phones, FRAMES, FPS, rng)
    return render(make_identity(seed), play, SIZE), play.mouth[:, 0]


@pytest.fixture(scope="module")
def clips() -> list[tuple[np.ndarray, np.ndarray]]:
    return [puppet(4000 + i) for i in range(14)]


@pytest.fixture(scope="module")
def detector(clips: list[tuple[np.ndarray, np.ndarray]]) -> PuppetMouth:
    return PuppetMouth.fit([c for c, _ in clips[:9]], [m for _, m in clips[:9]])


def test_opening_of_unseen_characters(clips: list, detector: PuppetMouth) -> None:
    scores = [agreement(detector.opening(frames), truth) for frames, truth in clips[9:]]
    print("agreement with the true opening on unseen puppets:", np.round(scores, 3))
    assert np.mean(scores) > 0.95 and min(scores) > 0.9


def test_soft_pictures_are_measured_too(clips: list, detector: PuppetMouth) -> None:
    for frames, truth in clips[9:]:
        soft = np.stack([np.asarray(Image.fromarray(f).filter(ImageFilter.GaussianBlur(1.2))) for f in frames])
        assert agreement(detector.opening(soft), truth) > 0.88


def test_a_still_face_and_another_faces_mouth_do_not_pass_as_speech(clips: list, detector: PuppetMouth) -> None:
    frames, truth = clips[9]
    rng = np.random.default_rng(zlib.crc32(b"voice"))
    sound = np.repeat(truth, 640) * rng.standard_normal(FRAMES * 640) * 0.2
    assert abs(sync_score(detector.opening(frames), sound, FPS, 16000).lag) <= 1
    assert sync_score(detector.opening(frames), sound, FPS, 16000).best > 0.6
    still = np.repeat(frames[:1], FRAMES, 0)
    assert np.isnan(sync_score(detector.opening(still), sound, FPS, 16000).lag)
    assert abs(agreement(detector.opening(clips[10][0]), truth)) < 0.5


def test_too_little_truth_is_refused() -> None:
    with pytest.raises(DataError, match="at least 50"):
        PuppetMouth.fit([np.zeros((4, 48, 48, 3), np.uint8)], [np.zeros(4)])
