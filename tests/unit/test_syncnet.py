"""SyncNet, ours and the field's: signs, figures, training on a mouth that follows a sound, files and errors."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streamchar.errors import CheckpointError, DataError, InputError
from streamchar.evaluation.speech_mfcc import speech_mfcc
from streamchar.evaluation.sync import sync_score
from streamchar.evaluation.syncnet import SyncNet, load_syncnet, save_syncnet, sync_distance
from streamchar.evaluation.syncnet_config import SyncNetConfig
from streamchar.evaluation.syncnet_field import FieldSyncNet, face_pictures, field_sync_distance, load_field_syncnet
from streamchar.evaluation.syncnet_input import picture_windows, sound_windows, window_count
from streamchar.evaluation.syncnet_offsets import score_offsets
from streamchar.evaluation.syncnet_training import train_syncnet
from streamchar.streaming.reading import read_clip

FPS, RATE, FRAMES, SIDE = 25.0, 16000, 60, 32
SMALL = SyncNetConfig(height=16, width=16, mels=16, channels=6, dim=16, steps=50, clips_per_step=6, windows_per_clip=14,
                      lr=4e-3)
SHARDS = Path(__file__).resolve().parents[3] / "shared" / "data" / "grid"


def speaker(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, sound and opening of a bright mouth that opens as far as the noise is loud."""
    rng = np.random.default_rng(seed)
    opening = np.interp(np.arange(FRAMES), np.arange(0, FRAMES, 2), rng.random(FRAMES // 2) ** 2)
    loudness = np.interp(np.arange(FRAMES * 640) / 640, np.arange(FRAMES) + 0.5, opening)
    sound = (loudness * rng.standard_normal(len(loudness)) * 0.3).astype(np.float32)
    frames = np.full((FRAMES, SIDE, SIDE, 3), rng.integers(40, 90), np.uint8)
    for frame, wide in zip(frames, opening, strict=True):
        frame[22 - round(5 * wide): 23 + round(5 * wide), 11:21] = 220
    return frames, sound, opening


@pytest.fixture(scope="module")
def clips() -> list[tuple[np.ndarray, np.ndarray]]:
    return [speaker(i)[:2] for i in range(30)]


@pytest.fixture(scope="module")
def net(clips: list) -> SyncNet:
    return train_syncnet(iter(clips), FPS, RATE, SMALL, seed=0)


def test_a_late_mouth_has_a_positive_offset_as_in_the_measure_without_a_network(net: SyncNet) -> None:
    found = []
    for seed in range(100, 106):
        frames, sound, opening = speaker(seed)
        for shift in (0, 4, -4):  # the mouth of frame i says what is heard `shift` frames earlier
            mouth = slice(0, FRAMES - shift) if shift > 0 else slice(-shift, FRAMES)
            heard = slice(shift * 640, None) if shift > 0 else slice(0, (FRAMES + shift) * 640)
            score = sync_distance(net, frames[mouth], sound[heard], FPS, RATE)
            found.append((score.offset, shift))
            assert sync_score(opening[mouth], sound[heard], FPS, RATE).lag == shift
            assert score.distance == min(score.curve) and len(score.curve) == 31 and score.confidence > 0
    print("offsets found and made:", found)
    assert np.mean([abs(offset - shift) <= 1 for offset, shift in found]) > 0.85


def test_cheaters_come_out_worse(net: SyncNet) -> None:
    true, swapped, still = [], [], []
    for seed in range(100, 110):
        frames, sound, _ = speaker(seed)
        true.append(sync_distance(net, frames, sound, FPS, RATE))
        swapped.append(sync_distance(net, frames, speaker(seed + 50)[1], FPS, RATE))
        still.append(sync_distance(net, np.repeat(frames[20:21], FRAMES, 0), sound, FPS, RATE))
    for cheats in (swapped, still):
        print([np.mean([getattr(s, name) for s in cheats]) for name in ("confidence", "distance")])
        assert np.mean([s.confidence for s in true]) > 1.5 * np.mean([s.confidence for s in cheats])
        assert np.mean([s.distance for s in true]) < np.mean([s.distance for s in cheats])


def test_training_is_the_same_for_a_seed_and_leaves_the_global_generator_alone(clips: list) -> None:
    short = replace(SMALL, steps=3)
    seen: list[tuple[int, int, float]] = []
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = train_syncnet(clips[:6], FPS, RATE, short, 1, lambda *a: seen.append(a)).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert [s[:2] for s in seen] == [(1, 3), (2, 3), (3, 3)] and all(np.isfinite(s[2]) for s in seen)
    again = train_syncnet(clips[:6], FPS, RATE, short, 1).state_dict()
    other = train_syncnet(clips[:6], FPS, RATE, short, 2).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_files_keep_the_network(net: SyncNet, tmp_path: Path) -> None:
    frames, sound, _ = speaker(200)
    save_syncnet(net, tmp_path / "net")
    assert sync_distance(load_syncnet(tmp_path / "net"), frames, sound, FPS, RATE) == sync_distance(net, frames, sound,
                                                                                                   FPS, RATE)
    with pytest.raises(CheckpointError, match="config.json is missing"):
        load_syncnet(tmp_path / "nowhere")
    (tmp_path / "net" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="train it again"):
        load_syncnet(tmp_path / "net")


def test_errors_name_the_remedy(net: SyncNet, clips: list) -> None:
    frames, sound = clips[0]
    assert len(sync_distance(net, frames[:10], sound, FPS, RATE).curve) == 7  # short clips are searched less far
    sync_distance(net, frames, sound, 24.0, RATE)
    with pytest.raises(InputError, match="7 frames with sound.*at least 8"):
        sync_distance(net, frames[:7], sound, FPS, RATE)
    with pytest.raises(InputError, match="50 fps.*trained at 25"):
        sync_distance(net, frames, sound, 50.0, RATE)
    with pytest.raises(InputError, match="16000 Hz, got 24000"):
        sync_distance(net, frames, sound, FPS, 24000)
    with pytest.raises(InputError, match="expected mono samples"):
        sync_distance(net, frames, sound[:0], FPS, RATE)
    with pytest.raises(InputError, match="float64, expected"):
        sync_distance(net, frames / 255, sound, FPS, RATE)
    with pytest.raises(InputError, match="syncnet.region"):
        SyncNet(SyncNetConfig(region=(0.5, 0.5, 0.4, 1.0)))
    with pytest.raises(DataError, match="1 training clips of which 1"):
        train_syncnet(clips[:1], FPS, RATE, SMALL)
    with pytest.raises(DataError, match="2 training clips of which 0"):
        train_syncnet([(f[:12], s) for f, s in clips[:2]], FPS, RATE, SMALL)


def test_windows_lie_over_their_sound() -> None:
    mel = torch.arange(240.0)[None]
    assert window_count(60, 240, 25) == 56 and window_count(60, 200, 25) == 46
    assert sound_windows(mel, torch.tensor([0, 10]), 25)[:, 0, [0, -1]].tolist() == [[0, 19], [40, 59]]
    # at 24 fps five frames last 208 ms; their middle is heard
    assert sound_windows(mel, torch.tensor([24]), 24)[0, 0, [0, -1]].tolist() == [100, 119]
    assert picture_windows(torch.arange(9), torch.tensor([0, 4])).tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]


def test_the_figures_of_a_curve() -> None:
    heard = torch.eye(40)
    for offset in (-6, 0, 6):
        score = score_offsets(torch.roll(heard, offset, 0), heard)
        assert (score.offset, score.distance) == (offset, 0) and score.confidence == pytest.approx(2**0.5)
    padded = score_offsets(heard, heard, zero_padded=True)
    assert padded.offset == 0 and padded.curve[0] == pytest.approx((25 * 2**0.5 + 15) / 40)
    still = score_offsets(heard[:1].expand(40, -1), heard.mean(0, keepdim=True).expand(40, -1))
    assert still.confidence == pytest.approx(0, abs=1e-6)
    with pytest.raises(InputError, match="same windows"):
        score_offsets(heard, heard[:-1])


def test_the_fields_architecture_loads_its_state_dict_and_refuses_another(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = FieldSyncNet().eval()
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}  # as old files
    assert sum(v.numel() for v in net.parameters()) == 13_631_616
    assert state["netcnnlip.18.weight"].shape == (512, 256, 1, 6, 6) and state["netfclip.3.weight"].shape == (1024, 512)
    torch.save(state, tmp_path / "syncnet_v2.model")
    loaded = load_field_syncnet(tmp_path / "syncnet_v2.model")
    red = np.zeros((2, 8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert face_pictures(red)[:, 0, 0, 0].tolist() == [0, 0, 200]  # BGR
    pictures = face_pictures(speaker(0)[0][:6])
    assert pictures.shape == (3, 6, 224, 224)
    with torch.no_grad():
        assert torch.equal(loaded.see(pictures), net.see(pictures)) and loaded.see(pictures).shape == (2, 1024)
        # a clip passed at once gives what its windows give one by one
        assert torch.allclose(loaded.see(pictures)[1:], loaded.see(pictures[:, 1:]), atol=1e-5)
        assert loaded.hear(torch.zeros(3, 13, 20)).shape == (3, 1024)
    torch.save({**state, "netfcaud.3.weight": torch.zeros(512, 512)}, tmp_path / "wrong")
    with pytest.raises(CheckpointError, match=r"netfcaud.3.weight has shape \(512, 512\), expected \(1024, 512\)"):
        load_field_syncnet(tmp_path / "wrong")
    torch.save({k: v for k, v in state.items() if k != "netfclip.0.bias"}, tmp_path / "less")
    with pytest.raises(CheckpointError, match="netfclip.0.bias is missing"):
        load_field_syncnet(tmp_path / "less")
    (tmp_path / "text").write_text("no")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_field_syncnet(tmp_path / "text")
    with pytest.raises(CheckpointError, match="syncnet_v2.model"):
        load_field_syncnet(tmp_path / "nowhere")


def test_the_fields_measure_runs_and_names_what_it_cannot_take() -> None:
    torch.manual_seed(0)
    net = FieldSyncNet().eval()
    frames, sound, _ = speaker(0)
    score = field_sync_distance(net, frames[:12], sound, 24.0, RATE)
    assert len(score.curve) == 31 and np.isfinite(score.curve).all() and score.distance == min(score.curve)
    with pytest.raises(InputError, match="8 frames with sound.*at least 9"):
        field_sync_distance(net, frames[:8], sound, FPS, RATE)
    with pytest.raises(InputError, match="16000 Hz, got 24000"):
        field_sync_distance(net, frames, sound, FPS, 24000)
    with pytest.raises(InputError, match="expected"):
        field_sync_distance(net, frames[..., :1], sound, FPS, RATE)


def test_cepstra_are_those_of_python_speech_features() -> None:
    t = np.arange(16000) / 16000
    cepstra = speech_mfcc(0.5 * np.sin(2 * np.pi * (200 + 900 * t) * t), 16000)
    # python_speech_features 0.6, mfcc() with its defaults on the same samples as int16
    assert cepstra.shape == (13, 99)
    np.testing.assert_allclose(cepstra[:, 0], [19.2307, 21.7275, 12.3342, 6.1104, -0.2507, -7.5619, -13.775, -19.8362,
                                               -23.4454, -25.141, -23.377, -20.4122, -16.0684], atol=1e-4)
    np.testing.assert_allclose(cepstra[:, 50], [22.3348, 3.2813, -30.6421, -32.1558, 0.7871, 28.9273, 19.5503, -14.1895,
                                                -27.8266, -7.4431, 18.5828, 17.0759, -4.9068], atol=1e-4)
    assert speech_mfcc(np.zeros(100), 16000).shape == (13, 1)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARDS / "grid-s1-val-00000.tar").is_file(), reason="needs ../shared/data/grid")
def test_real_clips_against_cheaters(tmp_path: Path) -> None:
    def read(shard: str, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        out = []
        with tarfile.open(SHARDS / shard) as tar:
            for member in [m for m in tar if m.name.endswith(".mp4")][:count]:
                (tmp_path / "clip.mp4").write_bytes(tar.extractfile(member).read())
                out.append(read_clip(tmp_path / "clip.mp4", RATE)[:2])
        return out

    net = train_syncnet((c for i in range(3) for c in read(f"grid-s1-train-0000{i}.tar", 100)), FPS, RATE,
                        SyncNetConfig(steps=500))
    held_out = read("grid-s1-val-00000.tar", 20)
    true = [sync_distance(net, f, s, FPS, RATE) for f, s in held_out]
    late = [sync_distance(net, f[:-5], s[5 * 640:], FPS, RATE) for f, s in held_out]
    swapped = [sync_distance(net, f, held_out[i - 1][1], FPS, RATE) for i, (f, _) in enumerate(held_out)]
    still = [sync_distance(net, np.repeat(f[30:31], len(f), 0), s, FPS, RATE) for f, s in held_out]
    assert np.mean([abs(s.offset) <= 1 for s in true]) >= 0.9 and np.mean([abs(s.offset - 5) <= 1 for s in late]) >= 0.9
    for cheats in (swapped, still):
        print(np.mean([s.confidence for s in true]), np.mean([s.confidence for s in cheats]))
        assert np.mean([s.confidence for s in true]) > 1.7 * np.mean([s.confidence for s in cheats])
        assert np.mean([s.distance for s in true]) < np.mean([s.distance for s in cheats]) - 0.1
