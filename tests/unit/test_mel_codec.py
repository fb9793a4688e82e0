"""The mel codec and its streaming vocoder: offsets, seams, exact length, saved streams."""

import pytest
import torch

from streamchar.codecs.mel import MelCodec
from streamchar.errors import InputError


def speech_like(samples: int, seed: int = 0) -> torch.Tensor:
    """(S,) a buzzing, gliding, gated sound."""
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(samples) / 16000
    pitch = 120 + 30 * torch.rand(1, generator=g) + 20 * torch.sin(2 * torch.pi * 1.3 * t)
    phase = 2 * torch.pi * pitch.cumsum(0) / 16000
    formant = 1.5 + torch.sin(2 * torch.pi * (2 + seed % 3) * t)
    buzz = sum(torch.sin(k * phase) * torch.exp(-(k / 6 - formant) ** 2) for k in range(1, 30))
    gate = (torch.sin(2 * torch.pi * 0.9 * t + seed) > -0.4).float()
    return 0.1 * buzz * gate + 0.003 * torch.randn(samples, generator=g)


@pytest.fixture(scope="module")
def codec() -> MelCodec:
    return MelCodec(64, iterations=8).fit(speech_like(32000, s) for s in range(8))


def test_lengths_floor(codec):
    for samples in (639, 640, 641, 16000, 21121):
        latents = codec.encode(torch.zeros(2, samples))
        assert latents.shape == (2, samples // 640, 64)
        assert codec.decode(latents[0]).shape == (samples // 640 * 640,)


def test_a_clip_encodes_the_same_from_any_latent_on(codec):
    wave = speech_like(25600, 9)
    whole = codec.encode(wave[None])
    for offset in (1, 7):
        part = codec.encode(wave[None, offset * 640:])
        assert torch.allclose(part[:, 1:], whole[:, offset + 1:], atol=2e-4)
    batch = codec.encode(torch.stack([wave, speech_like(25600, 10)]))
    assert torch.allclose(batch[:1], whole, atol=1e-4)


def test_pieces_equal_whole(codec):
    latents = codec.encode(speech_like(19200, 11)[None])[0]
    whole = codec.decode(latents)
    for cut in ([1] * 30, [30], [7, 1, 13, 9]):
        stream, parts = codec.decoder(), []
        for piece in latents.split(cut):
            parts.append(stream.push(piece))
        parts.append(stream.flush())
        assert torch.equal(torch.cat(parts), whole)


def test_lag_is_the_stated_lookahead(codec):
    stream = codec.decoder()
    assert len(stream.push(torch.zeros(10, 64))) == 10 * 640 - codec.lookahead
    assert len(stream.push(torch.zeros(3, 64))) == 3 * 640
    assert len(stream.push(torch.zeros(0, 64))) == 0
    assert len(stream.flush()) == codec.lookahead


def test_the_past_does_not_depend_on_what_follows_the_lookahead(codec):
    latents = codec.encode(speech_like(19200, 12)[None])[0]
    changed = latents.clone()
    changed[20:] = 0
    assert torch.equal(codec.decoder().push(latents[:20]), codec.decoder().push(changed)[:20 * 640 - codec.lookahead])


def test_a_saved_stream_continues_bit_identically(codec):
    latents = codec.encode(speech_like(19200, 13)[None])[0]
    first, second = codec.decoder(), codec.decoder()
    first.push(latents[:11])
    second.push(latents[20:])  # a used decoder forgets its own past
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.push(latents[11:]), second.push(latents[11:]))
    assert torch.equal(first.flush(), second.flush())


def test_static_buffers_give_the_same_sound_bit_by_bit():
    plain, static = (MelCodec(64, iterations=8).fit(speech_like(16000, s) for s in range(4)) for _ in range(2))
    static.make_static()
    latents = plain.encode(speech_like(19200, 11)[None])[0]
    whole, streams = plain.decode(latents), [static.decoder(), static.decoder()]
    assert torch.equal(static.decode(latents), whole)
    parts = [[s.push(piece) for s in streams] for piece in latents.split(7)]  # decoders take turns in the same buffers
    for i, stream in enumerate(streams):
        assert torch.equal(torch.cat([p[i] for p in parts] + [stream.flush()]), whole)
    first, second = static.decoder(), plain.decoder()
    first.push(latents[:11])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.push(latents[11:]), second.push(latents[11:]))
    assert static.fingerprint == plain.fingerprint


def test_sound_survives(codec):
    wave = speech_like(32000, 14)
    latents = codec.encode(wave[None])
    again = codec.encode(codec.decode(latents[0])[None])
    assert again[:, 2:-2].shape == latents[:, 2:-2].shape
    ratio = (again - latents)[:, 2:-2].square().mean() / latents[:, 2:-2].square().mean()
    assert ratio < 0.12


def test_refusals(codec):
    with pytest.raises(InputError, match="batch"):
        codec.encode(torch.zeros(640))
    with pytest.raises(InputError, match="NaN"):
        codec.decoder().push(torch.full((1, 64), float("nan")))
    with pytest.raises(InputError, match="takes"):
        codec.decoder().push(torch.zeros(1, 32))
