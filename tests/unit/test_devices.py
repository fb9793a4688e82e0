"""Measuring devices that need no pretrained weights: motion, sharpness, colour, repetition, intervals, features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from streamchar.errors import InputError
from streamchar.evaluation.bootstrap import interval
from streamchar.evaluation.deep_features import I3DFeatures, InceptionFeatures
from streamchar.evaluation.motion import dynamic_share, mean_motion, motion_energy
from streamchar.evaluation.picture_quality import colour_shift, lab, sharpness, sharpness_ratio
from streamchar.evaluation.repetition import repetition_score


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


# motion

def test_a_frozen_picture_has_no_motion_and_a_step_of_grey_is_counted_per_frame() -> None:
    still = np.repeat(noise(1, 8, 8, 3), 5, 0)
    assert motion_energy(still).whole == 0
    ramp = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None] * 3, (5, 8, 8, 3))
    assert motion_energy(ramp).whole == pytest.approx(3)
    assert np.isnan(motion_energy(still[:1]).whole)


def test_the_mouth_is_told_from_the_rest() -> None:
    frames = np.zeros((3, 10, 10, 3), np.uint8)
    frames[1, 5:9, 2:8] = 50
    found = motion_energy(frames, (0.2, 0.5, 0.8, 0.9))
    assert found.inside == pytest.approx(50) and found.outside == 0
    assert found.whole == pytest.approx(50 * 24 / 100)
    assert mean_motion([found, motion_energy(frames)]).inside == pytest.approx(50)
    with pytest.raises(InputError, match="holds no pixel"):
        motion_energy(frames, (0.5, 0.5, 0.5, 0.5))


def test_more_motion_than_real_is_no_merit() -> None:
    assert dynamic_share(1.0, 4.0) == 0.25 and dynamic_share(8.0, 4.0) == 1 and np.isnan(dynamic_share(1.0, 0.0))


# picture quality

def blurred(picture: np.ndarray) -> np.ndarray:
    from PIL import Image, ImageFilter
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1)))


def test_blur_lowers_sharpness_and_contrast_does_not() -> None:
    picture = noise(32, 32, 3)
    assert sharpness_ratio(np.stack([picture, picture]), picture) == pytest.approx(1)
    assert sharpness_ratio(blurred(picture)[None], picture) < 0.3
    assert sharpness((picture // 2).astype(np.uint8)) == pytest.approx(sharpness(picture), rel=0.02)
    assert np.isnan(sharpness_ratio(picture[None], np.zeros_like(picture)))
    with pytest.raises(InputError, match="one size"):
        sharpness_ratio(picture[None, :16], picture)


def test_lab_of_known_colours() -> None:
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    known = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    assert np.allclose(lab(colours), known, atol=0.02)
    grey, lighter = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 110, np.uint8)
    assert colour_shift(grey[None], grey) == 0
    assert colour_shift(np.stack([grey, lighter]), grey) == pytest.approx((lab(lighter) - lab(grey))[0, 0, 0] / 2)


# repetition

@pytest.mark.parametrize(("text", "heard", "repeated", "inserted"), [
    ("set blue at f two now", "set blue at f two now", 0, 0),
    ("set blue at f two now", "set blue set blue at f two now", 2, 2),
    ("set blue at f two now", "set set set blue at f two now", 2, 2),
    ("set blue at f two now", "set blue at f two now please", 0, 1),
    ("bin blue at blue", "bin blue at blue", 0, 0),
    ("no no no", "no no no", 0, 0),
    ("set blue at f two now", "", 0, 0),
    ("set blue at f two now", "set blue set blue set blue", 4, 0),  # as long as the text: no room for insertions
    ("the cat on a mat", "the cat on the mat", 0, 0),  # misheard, not repeated
])
def test_repetitions_of_hand_cases(text: str, heard: str, repeated: int, inserted: int) -> None:
    pytest.importorskip("jiwer")
    score = repetition_score([text], [heard])
    words = len(text.split())
    assert score.repeated == pytest.approx(repeated / words)
    assert score.inserted == pytest.approx(inserted / words)


def test_repetition_pools_sentences_and_names_what_is_wrong() -> None:
    pytest.importorskip("jiwer")
    assert repetition_score(["a b", "c d"], ["a a b", "c d"]).repeated == pytest.approx(1 / 4)
    with pytest.raises(InputError, match="1 texts but 2"):
        repetition_score(["a"], ["a", "b"])
    with pytest.raises(InputError, match="nothing to score"):
        repetition_score([""], ["a"])


# bootstrap

def test_an_interval_holds_the_mean_is_repeatable_and_narrows_with_clips() -> None:
    values = np.random.default_rng(1).normal(5, 1, 400)
    low, high = interval(values)
    assert low < 5.05 and high > 4.95 and (low, high) == interval(values) != interval(values, seed=1)
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)
    few = interval(values[:16])
    assert few[1] - few[0] > 2 * (high - low)


def test_an_interval_leaves_nan_out_and_takes_a_statistic_of_rows() -> None:
    values = np.array([1.0, 2.0, 3.0, np.nan])
    assert interval(values) == interval(values[:3])
    assert interval(np.array([4.0])) == (4.0, 4.0) and np.isnan(interval(np.array([np.nan]))).all()
    rows = np.array([[1.0, 10.0], [2.0, 10.0], [np.nan, 10.0]])
    low, high = interval(rows, lambda r: r[:, 0].sum() / r[:, 1].sum())
    assert 0.1 <= low < high <= 0.2


# deep features

class LikeInception(nn.Module):
    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        x = img.float().mean((2, 3))
        return x.repeat(1, 4) if return_features else x


class LikeI3D(nn.Module):
    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        x = x / 127.5 - 1 if rescale else x
        out = x.mean((3, 4)).amax(2)
        return out.repeat(1, 5) if return_features and resize else out


class Other(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def saved(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


def test_frames_and_clips_become_features(tmp_path: Path) -> None:
    frames = noise(37, 12, 8, 3)
    inception = InceptionFeatures(saved(LikeInception(), tmp_path / "inception.pt"))(frames)
    assert inception.shape == (37, 12) and inception.dtype == torch.float32
    assert torch.allclose(inception[:, :3], torch.from_numpy(frames.mean((1, 2))).float(), atol=1e-3)
    i3d = I3DFeatures(saved(LikeI3D(), tmp_path / "i3d.pt"))
    clips = i3d(frames)
    assert clips.shape == (2, 15)  # 37 frames hold two clips of 16
    assert torch.allclose(clips[1, :3], torch.from_numpy(frames[16:32].mean((1, 2)).max(0)).float() / 127.5 - 1,
                          atol=1e-5)
    with pytest.raises(InputError, match="got 15 frames"):
        i3d(frames[:15])
    with pytest.raises(InputError, match="at least 10"):
        I3DFeatures(tmp_path / "i3d.pt", clip_frames=9)
    with pytest.raises(InputError, match="uint8"):
        i3d(frames.astype(np.float32))


def test_missing_and_foreign_feature_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        InceptionFeatures(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(InputError, match="not a TorchScript file"):
        I3DFeatures(tmp_path / "text.pt")
    other = saved(Other(), tmp_path / "other.pt")
    with pytest.raises(InputError, match="takes x, not return_features"):
        InceptionFeatures(other)
    with pytest.raises(InputError, match="rescale, resize"):
        I3DFeatures(other)
