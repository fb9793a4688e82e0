"""Codecs on disk and inside an exported model."""

import json

import pytest
import torch

from streamchar.codecs.protocol import AudioCodec, AudioDecoder, VideoCodec
from streamchar.codecs.store import (
    AudioCodecConfig,
    CodecConfig,
    Codecs,
    VideoCodecConfig,
    build_codec,
    codec_from_state,
    codec_state,
    fit_codecs,
    load_codec,
    save_codec,
)
from streamchar.errors import CheckpointError, InputError


@pytest.fixture(scope="module")
def codecs() -> Codecs:
    g = torch.Generator().manual_seed(0)
    clips = [((torch.rand(9, 3, 16, 16, generator=g) * 255).byte(), 0.1 * torch.randn(8000, generator=g))
             for _ in range(4)]
    cfg = CodecConfig(VideoCodecConfig(channels=8), AudioCodecConfig(channels=12, iterations=2))
    return fit_codecs(cfg, [*clips, (None, torch.randn(6400, generator=g))])


def test_protocols(codecs):
    assert isinstance(codecs.video, VideoCodec)
    assert isinstance(codecs.audio, AudioCodec)
    assert isinstance(codecs.audio.decoder(), AudioDecoder)
    assert codecs.video.channels == 8 and codecs.audio.channels == 12 and codecs.audio.latent_rate == 25


@pytest.mark.parametrize("which", ["video", "audio"])
def test_round_trip(codecs, which, tmp_path):
    codec = getattr(codecs, which)
    save_codec(codec, tmp_path / which)
    again = load_codec(tmp_path / which)
    assert again.fingerprint == codec.fingerprint
    if which == "video":
        frames = torch.rand(1, 5, 3, 16, 16)
        assert torch.equal(again.encode(frames), codec.encode(frames))
    else:
        wave = torch.randn(1, 3200)
        assert torch.equal(again.encode(wave), codec.encode(wave))
        assert torch.equal(again.decode(torch.ones(3, 12)), codec.decode(torch.ones(3, 12)))


def test_carried_in_another_state_dict(codecs):
    config, weights = codec_state(codecs.audio)
    config = json.loads(json.dumps(config))
    carried = {f"codecs.audio.{k}": v for k, v in weights.items()}
    again = codec_from_state(config, {k.removeprefix("codecs.audio."): v for k, v in carried.items()})
    assert again.fingerprint == codecs.audio.fingerprint


def test_fingerprint_tells_weights_and_settings_apart(codecs):
    config, weights = codec_state(codecs.video)
    assert build_codec(VideoCodecConfig(channels=8)).fingerprint != codecs.video.fingerprint
    assert (build_codec(VideoCodecConfig(channels=8)).fingerprint
            != build_codec(VideoCodecConfig(channels=8, sigma_floor=0.5)).fingerprint)
    damaged = {k: v + 1e-3 for k, v in weights.items()}
    with pytest.raises(CheckpointError, match="fingerprint"):
        codec_from_state(config, damaged)


def test_bad_folders(codecs, tmp_path):
    with pytest.raises(CheckpointError, match="stage=encode"):
        load_codec(tmp_path / "nowhere")
    save_codec(codecs.video, tmp_path / "v")
    (tmp_path / "v" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_codec(tmp_path / "v")
    with pytest.raises(CheckpointError, match="unknown codec kind"):
        codec_from_state({"kind": "mp3"}, {})
    config, weights = codec_state(codecs.video)
    config["settings"] = {"channels": 9}
    with pytest.raises(CheckpointError, match="does not fit"):
        codec_from_state(config, weights)


def test_wrong_values_come_all_at_once():
    with pytest.raises(InputError, match="channels=0.*sigma_floor=2"):
        build_codec(VideoCodecConfig(channels=0, sigma_floor=2))
    assert len(CodecConfig(VideoCodecConfig(kind="taef2"), AudioCodecConfig(kind="lyra")).problems()) == 2
