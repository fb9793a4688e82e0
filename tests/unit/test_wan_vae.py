"""Wan's video autoencoder as a codec gives what diffusers gives, group by group, and travels with a model."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.compose import compose
from pipelines.config.errors import ConfigError
from pipelines.config.geometry import geometry
from pipelines.config.grammar import parse
from streamchar.codecs.protocol import VideoCodec
from streamchar.codecs.store import VideoCodecConfig, build_codec, codec_from_state, codec_state, load_codec, save_codec
from streamchar.errors import CheckpointError, InputError
from tests.diffusers_models import wan_vae

STRIDE, CHANNELS = {"2.2": 16, "2.1": 8}, {"2.2": 6, "2.1": 4}


@pytest.fixture(scope="module", params=["2.2", "2.1"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(codec, diffusers' model, folder, stride)."""
    folder = tmp_path_factory.mktemp("wan")
    vae = wan_vae(folder, request.param)
    codec = build_codec(VideoCodecConfig(kind="wan", path=str(folder)))
    assert isinstance(codec, VideoCodec)
    assert (codec.channels, codec.spatial_stride) == (CHANNELS[request.param], STRIDE[request.param])
    return codec, vae, folder, codec.spatial_stride


@torch.no_grad()
def test_encoding_and_decoding_are_diffusers_own(pair) -> None:
    codec, vae, _, stride = pair
    frames = torch.rand(2, 9, 3, 2 * stride, 3 * stride)
    mean, std = (torch.tensor(vae.config[f"latents_{n}"]).view(1, -1, 1, 1, 1) for n in ("mean", "std"))
    theirs = (vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode() - mean) / std
    ours = codec.encode(frames)
    assert ours.shape == (2, codec.channels, 3, 2, 3)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    latents = torch.randn(2, codec.channels, 3, 2, 3)
    shown = (vae.decode(latents * std + mean).sample.transpose(1, 2) + 1) / 2
    torch.testing.assert_close(codec.decode(latents), shown, atol=1e-4, rtol=1e-4)
    assert codec.decode(latents).shape == frames.shape and shown.std() > 0.01


@torch.no_grad()
def test_groups_are_independent_and_a_picture_is_one_latent(pair) -> None:
    codec, _, _, stride = pair
    a, b = torch.rand(2, 1, 5, 3, stride, stride)
    both = codec.encode(torch.cat([a, b]))
    codec.encode(b)  # leaves no trace
    torch.testing.assert_close(both[:1], codec.encode(a))
    torch.testing.assert_close(codec.encode(a[:, :1]), codec.encode(a)[:, :, :1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(codec.decode(both)[1:], codec.decode(both[1:]))
    with pytest.raises(InputError, match=f"multiples of {stride}"):
        codec.encode(torch.rand(1, 5, 3, stride, stride + 2))


def test_it_travels_without_its_folder(pair, tmp_path: Path) -> None:
    codec, _, _, stride = pair
    save_codec(codec, tmp_path)
    again = load_codec(tmp_path)
    frames = torch.rand(1, 5, 3, stride, stride)
    assert torch.equal(again.encode(frames), codec.encode(frames)) and again.fingerprint == codec.fingerprint
    config, weights = codec_state(codec)
    name = next(k for k, v in weights.items() if v.is_floating_point())
    with pytest.raises(CheckpointError, match="damaged"):
        codec_from_state(config, {**weights, name: weights[name] + 1})


def test_sizes_come_from_the_folder(pair) -> None:
    codec, _, folder, stride = pair
    line = ["preset=tiny", "codec.video.kind=wan", f"codec.video.path={folder}", "denoiser.patch=2", "--dry-run"]
    shape = geometry(compose(parse([*line, "data.size=64"])))
    assert (shape.grid, shape.video_channels) == (64 // stride, codec.channels)
    with pytest.raises(ConfigError, match=f"multiple of {2 * stride} pixels"):
        compose(parse([*line, "data.size=72"]))


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="codec.video.path: .*holds no config.json"):
        compose(parse(["preset=tiny", "codec.video.kind=wan", f"codec.video.path={tmp_path}", "--cfg"]))
    wan_vae(tmp_path)
    weights = next((tmp_path / "vae").glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(InputError, match="AutoencoderKLWan.*cannot be read"):
        build_codec(VideoCodecConfig(kind="wan", path=str(tmp_path)))
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "diffusers":
            raise ImportError("No module named 'diffusers'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install \.\[diffusers\]"):
        build_codec(VideoCodecConfig(kind="wan", path=str(tmp_path)))
