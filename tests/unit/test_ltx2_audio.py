"""LTX-2's sound autoencoder and vocoder as a codec: diffusers' own results, in one piece and in any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.compose import compose
from pipelines.config.errors import ConfigError
from pipelines.config.geometry import geometry
from pipelines.config.grammar import parse
from streamchar.codecs.ltx2_reach import margin_frames, past_latents
from streamchar.codecs.protocol import AudioCodec, AudioDecoder
from streamchar.codecs.store import AudioCodecConfig, build_codec, load_codec, save_codec
from streamchar.errors import InputError
from tests.diffusers_models import LTX2_VAE, ltx2_audio

LATENT = 960
"""Samples at 24 kHz."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(codec, autoencoder, vocoder, folder)."""
    folder = tmp_path_factory.mktemp("ltx2")
    vae, vocoder = ltx2_audio(folder)
    codec = build_codec(AudioCodecConfig(kind="ltx2", path=str(folder)))
    assert isinstance(codec, AudioCodec) and isinstance(codec.decoder(), AudioDecoder)
    assert (codec.channels, codec.latent_rate, codec.sample_rate) == (32, 25.0, 24000)
    return codec, vae, vocoder, folder


def speech_like(latents: int, extra: int = 0) -> torch.Tensor:
    time = torch.arange(LATENT * latents + extra) / 24000
    return 0.4 * torch.sin(2 * torch.pi * (180 + 60 * torch.sin(9 * time)) * time) * torch.sin(7 * time).abs()


@torch.no_grad()
def test_latents_are_the_autoencoders_own(made) -> None:
    import torchaudio

    codec, vae, _, _ = made
    wave = speech_like(12, 500)
    low = torchaudio.functional.resample(wave[None], 24000, 16000)
    front = torchaudio.transforms.MelSpectrogram(16000, 1024, 1024, 160, 0.0, 8000.0, n_mels=64, power=1.0, center=True,
                                                 mel_scale="slaney", norm="slaney")
    mel = front(low).clamp_min(1e-5).log().transpose(1, 2)[:, None].expand(-1, 2, -1, -1)
    z = vae.encode(mel).latent_dist.mode()  # (1, 2, T, 16)
    theirs = (z.transpose(1, 2).flatten(2) - vae.latents_mean) / vae.latents_std
    ours = codec.encode(wave[None])
    assert ours.shape == (1, 12, 32)
    torch.testing.assert_close(ours, theirs[:, 1:13], atol=1e-4, rtol=1e-4)
    assert codec.encode(wave[None, :LATENT - 1]).shape == (1, 0, 32)


@torch.no_grad()
def test_sound_is_the_decoders_and_vocoders_own(made) -> None:
    codec, vae, vocoder, _ = made
    latents = torch.randn(15, 32)
    whole = torch.cat([codec.silence, latents])[None] * vae.latents_std + vae.latents_mean
    theirs = vocoder(vae.decode(whole.unflatten(2, (2, 16)).transpose(1, 2)).sample)
    ours = codec.decode(latents)
    assert ours.shape == (15 * LATENT,) and ours.std() > 0.01
    torch.testing.assert_close(ours, theirs.mean(1)[0, :15 * LATENT], atol=1e-4, rtol=1e-4)
    both = codec.decode(torch.stack([latents, latents.flip(0)]))
    torch.testing.assert_close(both[0], ours, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_decoded_in_pieces_is_decoded_whole(made) -> None:
    codec, _, _, _ = made
    latents = torch.randn(80, 32)
    whole = codec.decode(latents)
    for cuts in ([35, 34, 11], [1] * 7 + [73], [80]):
        decoder, parts, pushed = codec.decoder(), [], 0
        for piece in latents.split(cuts):
            parts.append(decoder.push(piece))
            pushed += len(piece)
            assert sum(map(len, parts)) == max(pushed * LATENT - codec.lookahead, 0)
        parts.append(decoder.flush())
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-4)
    assert len(decoder._latents) <= 80 + 1


@torch.no_grad()
def test_a_saved_stream_goes_on_bit_identically_and_keeps_a_bounded_past(made) -> None:
    codec, _, _, _ = made
    latents = torch.randn(120, 32)
    first, second = codec.decoder(), codec.decoder()
    for piece in latents[:100].split(20):
        first.push(piece)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.push(latents[100:]), second.push(latents[100:]))
    assert torch.equal(first.flush(), second.flush())
    assert len(first._latents) < 100
    with pytest.raises(InputError, match=r"takes \(T, 32\)"):
        first.push(torch.zeros(3, 5))
    with pytest.raises(InputError, match="diverged"):
        first.push(torch.full((1, 32), torch.nan))


@torch.no_grad()
def test_reaches_are_what_the_networks_show(made) -> None:
    codec, _, _, _ = made
    mel = torch.zeros(1, 2, 101, 64)
    touched = mel.clone()
    touched[:, :, 50] = 1.0
    changed = (codec.sound(touched) - codec.sound(mel))[0].unflatten(0, (101, 240)).abs().amax(1) > 0
    where = changed.nonzero()[:, 0]
    assert 50 - codec.margin < where.min() and where.max() < 50 + codec.margin
    assert where.min() <= 50 - codec.margin + 4  # and not much less
    z = torch.zeros(1, codec.past + 20, 32)
    other = z.clone()
    other[:, 0] = 3.0
    frames = (codec.decode_mel(other) - codec.decode_mel(z)).abs().amax((0, 1, 3)) > 1e-9
    assert frames.nonzero().max() <= 4 * codec.past


def test_the_published_sizes_lag_by_a_fifth_of_a_second() -> None:
    published = {"upsample_kernel_sizes": [16, 15, 8, 4, 4], "upsample_factors": [6, 5, 2, 2, 2],
                 "resnet_kernel_sizes": [3, 7, 11], "resnet_dilations": [[1, 3, 5]] * 3}
    assert margin_frames(published) == 22
    assert past_latents({"ch_mult": [1, 2, 4], "num_res_blocks": 2}) == 34
    with pytest.raises(InputError, match="not causal"):
        past_latents({**LTX2_VAE, "mid_block_add_attention": True})


def test_it_travels_and_what_does_not_fit_is_refused(made, tmp_path: Path) -> None:
    codec, _, _, folder = made
    save_codec(codec, tmp_path / "codec")
    again = load_codec(tmp_path / "codec")
    wave = speech_like(4)[None]
    assert torch.equal(again.encode(wave), codec.encode(wave)) and again.fingerprint == codec.fingerprint
    line = ["preset=5b", "codec.audio.kind=ltx2", "--dry-run"]
    shape = geometry(compose(parse([*line, f"codec.audio.path={folder}"])))
    assert (shape.audio_channels, shape.clock.audio_rate, shape.clock.sample_rate) == (32, 25.0, 24000)
    assert [shape.clock.audio_owned(k) for k in range(3)] == [35, 34, 35]
    with pytest.raises(ConfigError, match="codec.audio.path: .*holds no config.json"):
        compose(parse([*line, f"codec.audio.path={tmp_path}"]))
    ltx2_audio(tmp_path, upsample_factors=[6, 5, 2, 2, 1], upsample_kernel_sizes=[16, 15, 8, 4, 1])
    with pytest.raises(ConfigError, match="makes 120 samples a frame"):
        compose(parse([*line, f"codec.audio.path={tmp_path}"]))
