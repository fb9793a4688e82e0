"""Codecs from local files; skipped where ../shared/data is absent. The TAEF2 layers are tested without it too."""

import tarfile
from pathlib import Path

import pytest
import torch

from streamchar.codecs.lyra import LyraCodec
from streamchar.codecs.store import VideoCodecConfig, build_codec, load_codec, save_codec
from streamchar.codecs.taef2 import Taef2Codec
from streamchar.errors import InputError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def needs(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=f"needs ../shared/data/{folder}")


def grid_frames(count: int = 9) -> torch.Tensor:
    """(F, 3, 160, 160) uint8 of one GRID clip."""
    import io

    import av
    with tarfile.open(DATA / "grid" / "grid-s1-val-00000.tar") as tar:
        member = next(m for m in tar if m.name.endswith(".mp4"))
        content = tar.extractfile(member).read()
    with av.open(io.BytesIO(content)) as media:
        pictures = [f.to_ndarray(format="rgb24") for _, f in zip(range(count), media.decode(video=0), strict=False)]
    return torch.stack([torch.from_numpy(p) for p in pictures]).permute(0, 3, 1, 2)


def random_taef2(channels: int) -> Taef2Codec:
    torch.manual_seed(0)
    return Taef2Codec(channels).fit([(torch.rand(9, 3, 16, 16) * 255).byte() for _ in range(3)])


def test_taef2_shapes_and_full_channels_lose_nothing():
    codec = random_taef2(128)
    frames = torch.rand(2, 9, 3, 16, 16)
    latents = codec.encode(frames)
    assert latents.shape == (2, 128, 3, 2, 2)
    direct = codec.decoder(codec.encoder(frames[0])).clamp(0, 1)
    assert torch.allclose(codec.decode(latents)[0], direct, atol=1e-3)
    assert codec.decode(codec.encode(frames[:, :1])).shape == (2, 1, 3, 16, 16)


def test_taef2_chunks_are_independent():
    codec = random_taef2(16)
    frames = torch.rand(1, 9, 3, 16, 16)
    changed = frames.clone()
    changed[:, 5:] = 0
    assert torch.allclose(codec.encode(changed)[:, :, :2], codec.encode(frames)[:, :, :2], atol=1e-5)


def test_taef2_refuses_missing_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        build_codec(VideoCodecConfig(kind="taef2", channels=128, path=str(tmp_path)))
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "taef2_encoder.pth")
    with pytest.raises(InputError, match="is not a TAEF2 encoder"):
        build_codec(VideoCodecConfig(kind="taef2", channels=128, path=str(tmp_path)))


@needs("taef2")
@needs("grid")
@pytest.mark.parametrize(("channels", "least"), [(128, 32.0), (48, 28.5)])
def test_taef2_keeps_real_faces(channels, least, tmp_path):
    frames = grid_frames()
    codec = build_codec(VideoCodecConfig(kind="taef2", channels=channels, path=str(DATA / "taef2"))).fit([frames])
    x = frames.float()[None] / 255
    psnr = -10 * torch.log10((codec.decode(codec.encode(x)) - x).square().mean())
    assert psnr > least
    save_codec(codec, tmp_path)
    assert torch.equal(load_codec(tmp_path).encode(x[:, :5]), codec.encode(x[:, :5]))


@pytest.fixture(scope="module")
def lyra() -> LyraCodec:
    if not (DATA / "lyra").is_dir():
        pytest.skip("needs ../shared/data/lyra")
    pytest.importorskip("ai_edge_litert")
    codec = LyraCodec(stack=2)
    codec.load_files(DATA / "lyra")
    return codec.fit([lyra_sample()])


def lyra_sample() -> torch.Tensor:
    import wave
    with wave.open(str(DATA / "lyra" / "sample1_16kHz.wav")) as file:
        content = file.readframes(file.getnframes())
    return torch.frombuffer(bytearray(content), dtype=torch.int16).float() / 32768


def test_lyra_latents_are_normalised_and_fit_the_clock(lyra):
    sound = lyra_sample()
    latents = lyra.encode(sound[None])
    assert latents.shape == (1, len(sound) // 640, 128) and lyra.latent_rate == 25
    assert torch.allclose(latents[0].mean(0), torch.zeros(128), atol=0.3)
    assert ((latents[0].std(0) > 0.7) & (latents[0].std(0) < 1.3)).all()


def test_lyra_pieces_equal_whole_and_saved_streams_continue(lyra):
    latents = lyra.encode(lyra_sample()[None])[0, :60]
    whole = lyra.decode(latents)
    assert whole.shape == (60 * 640,)
    first = lyra.decoder()
    parts = [first.push(latents[:7]), first.push(latents[7:41])]
    second = lyra.decoder()
    second.push(latents[50:])
    second.load_state_dict(first.state_dict())
    parts += [second.push(latents[41:]), second.flush()]
    assert torch.equal(torch.cat(parts), whole)


def test_lyra_keeps_speech(lyra):
    sound = lyra_sample()
    again = lyra.decode(lyra.encode(sound[None])[0])
    spectrum = [torch.stft(x[:len(again)], 512, 160, window=torch.hann_window(512), return_complex=True).abs()
                for x in (sound, again)]
    a, b = (torch.log(s + 0.05).flatten() for s in spectrum)
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.85


def test_lyra_on_disk(lyra, tmp_path):
    save_codec(lyra, tmp_path)
    again = load_codec(tmp_path)
    latents = lyra.encode(lyra_sample()[None, :12800])
    assert torch.equal(again.encode(lyra_sample()[None, :12800]), latents)
    assert again.fingerprint == lyra.fingerprint
    with pytest.raises(InputError, match="codec.audio.path"):
        LyraCodec().encode(torch.zeros(1, 6400))
