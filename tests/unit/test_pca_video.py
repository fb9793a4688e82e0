"""The PCA video codec: shapes, independence of groups, faithful pictures, refusals."""

import pytest
import torch

from streamchar.codecs.pca_video import PcaVideoCodec
from streamchar.errors import DataError, InputError


def moving_picture(frames: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    """(F, 3, H, W) uint8: a coloured disc that wanders over a gradient."""
    g = torch.Generator().manual_seed(seed)
    colour, speed = torch.rand(3, 1, 1, generator=g), 1 + 2 * torch.rand(2, generator=g)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    out = []
    for t in range(frames):
        inside = (x - 10 - speed[0] * t % 12) ** 2 + (y - 12 - speed[1] * t % 9) ** 2 < 40
        out.append(torch.where(inside, colour, (x / size * 0.5 + 0.2).expand(3, -1, -1)))
    return (torch.stack(out) * 255).round().byte()


@pytest.fixture(scope="module")
def codec() -> PcaVideoCodec:
    return PcaVideoCodec(16).fit(moving_picture(33, seed=s) for s in range(8))


def test_shapes_and_range(codec):
    frames = moving_picture(9, seed=20).float()[None] / 255
    latents = codec.encode(frames)
    assert latents.shape == (1, 16, 3, 4, 4)
    decoded = codec.decode(latents)
    assert decoded.shape == frames.shape and decoded.min() >= 0 and decoded.max() <= 1
    assert codec.encode(frames[:, :1]).shape == (1, 16, 1, 4, 4)


def test_pictures_survive(codec):
    frames = moving_picture(9, seed=21).float()[None] / 255
    error = (codec.decode(codec.encode(frames)) - frames).square().mean()
    assert -10 * torch.log10(error) > 22
    assert error < 0.2 * (frames - frames.mean()).square().mean()


def test_latents_have_a_mean_variance_of_one_and_strong_channels_keep_more(codec):
    latents = torch.cat([codec.encode(moving_picture(33, seed=s).float()[None] / 255) for s in range(8)])
    sigma = latents.std((0, 2, 3, 4))
    assert 0.6 < sigma.square().mean() < 1.5
    assert 1.3 < sigma[0] < 4 and sigma[0] > sigma[-1]


def test_full_whitening_gives_unit_variance():
    clips = [moving_picture(33, seed=s) for s in range(8)]
    codec = PcaVideoCodec(8, whiten=1.0).fit(clips)
    sigma = torch.cat([codec.encode(c.float()[None] / 255) for c in clips]).std((0, 2, 3, 4))
    assert ((sigma > 0.7) & (sigma < 1.4)).all()


def test_noise_on_latents_harms_less_than_when_whitened(codec):
    clips = [moving_picture(33, seed=s) for s in range(8)]
    frames = torch.stack(clips).float() / 255
    errors = {}
    for whiten in (0.0, 0.5, 1.0):
        other = PcaVideoCodec(16, whiten=whiten).fit(clips)
        latents = other.encode(frames)
        noisy = latents + 0.3 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        errors[whiten] = float((other.decode(noisy) - frames).square().mean())
    assert errors[0.5] < min(errors[0.0], errors[1.0])


def test_chunks_are_independent(codec):
    clip = moving_picture(18, seed=22).float() / 255
    both = codec.encode(torch.stack([clip[:9], clip[9:]]))
    assert torch.allclose(codec.encode(clip[None, 9:]), both[1:], atol=1e-5)
    changed = clip[:9].clone()
    changed[5:] = 0
    assert torch.equal(codec.encode(changed[None])[:, :, :2], codec.encode(clip[None, :9])[:, :, :2])


def test_weak_channels_are_not_blown_up():
    # One clip of a still picture has few real components; the rest must stay small instead of unit-variance noise.
    clip = moving_picture(1, seed=3).expand(9, -1, -1, -1)
    noisy = (clip.float() + torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()
    codec = PcaVideoCodec(64, sigma_floor=0.1, whiten=1.0).fit([noisy])
    assert codec.encode(noisy.float()[None] / 255).std((0, 2, 3, 4))[-1] < 0.5


def test_refusals(codec):
    with pytest.raises(InputError, match="1 \\+ 4 n frames, got 8"):
        codec.encode(torch.zeros(1, 8, 3, 32, 32))
    with pytest.raises(InputError, match="multiples of 8"):
        codec.encode(torch.zeros(1, 9, 3, 30, 32))
    with pytest.raises(DataError):
        PcaVideoCodec(16).fit([])
