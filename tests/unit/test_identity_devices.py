"""Faces, voices and sound quality by published networks: real weights where they are, random ones elsewhere."""

from __future__ import annotations

import itertools
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from streamchar.errors import InputError
from streamchar.evaluation.dnsmos import Dnsmos, windows
from streamchar.evaluation.face_identity import MEAN_FACE, FaceIdentity, face_chip, face_distance, similarity_transform
from streamchar.evaluation.face_mesh import FaceMesh
from streamchar.evaluation.face_network import FaceNetwork, tfjs_name
from streamchar.evaluation.slaney_mel import mel_filters, mel_power
from streamchar.evaluation.tfjs_weights import read_tfjs_weights
from streamchar.evaluation.voice_identity import VoiceIdentity, VoiceNetwork, similarity, window_starts
from streamchar.streaming.reading import read_clip, read_sound

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MESH = DATA / "mediapipe_face" / "face_landmarks_detector.tflite"


def needs(*folders: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not all((DATA / f).is_dir() for f in folders),
                              reason=f"needs ../shared/data/{{{','.join(folders)}}}")


@pytest.fixture(scope="module")
def grid_clips(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames and sound of four clips of one speaker."""
    path = tmp_path_factory.mktemp("grid") / "clip.mp4"
    clips = []
    with tarfile.open(DATA / "grid" / "grid-s1-val-00000.tar") as tar:
        for member in [m for m in tar if m.name.endswith(".mp4")][:4]:
            path.write_bytes(tar.extractfile(member).read())
            clips.append(read_clip(path, 16000)[:2])
    return clips


# mel

def test_mel_filters_have_unit_area_and_a_tone_falls_into_its_band() -> None:
    filters = mel_filters(16000, 1600, 40)
    assert np.allclose(filters.sum(1) * 10, 1, atol=0.02)  # bins are 10 Hz apart
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    power = mel_power(tone, 16000, 400, 160, 40)
    assert power.shape == (101, 40)
    assert power[50].argmax() == mel_filters(16000, 400, 40)[:, 25].argmax()  # bin 25 is 1000 Hz


# faces

def test_quantised_and_plain_weights_are_read(tmp_path: Path) -> None:
    plain = np.array([1.5, -2], "<f4")
    (tmp_path / "a").write_bytes(bytes([0, 10, 255]) + plain.tobytes()[:4])
    (tmp_path / "b").write_bytes(plain.tobytes()[4:])
    group = {"paths": ["a", "b"], "weights": [
        {"name": "q", "shape": [3, 1], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1}},
        {"name": "p", "shape": [2], "dtype": "float32"}]}
    manifest = tmp_path / "m-weights_manifest.json"
    manifest.write_text(json.dumps([group]))
    arrays = read_tfjs_weights(tmp_path)
    assert arrays["q"].tolist() == [[-1], [4], [126.5]] and arrays["p"].tolist() == [1.5, -2]
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(InputError, match="fetch the folder again"):
        read_tfjs_weights(tmp_path)
    manifest.unlink()
    with pytest.raises(InputError, match="0 files named"):
        read_tfjs_weights(tmp_path)


def test_the_face_network_takes_weights_in_tensorflows_order() -> None:
    torch.manual_seed(0)
    net = FaceNetwork().eval()
    arrays = {tfjs_name(name): (p.permute(2, 3, 1, 0) if p.ndim == 4 else p.T if p.ndim == 2 else p).detach().numpy()
              for name, p in net.named_parameters()}
    assert {"fc", "conv32_down/conv/filters", "conv64_down/conv2/scale/biases"} <= set(arrays)
    torch.manual_seed(1)
    chips = torch.rand(2, 3, 150, 150) * 255
    with torch.no_grad():
        found = FaceNetwork().load_tfjs(arrays).eval()(chips)
        assert found.shape == (2, 128) and torch.equal(found, net(chips))
    with pytest.raises(InputError, match="needs fc"):
        net.load_tfjs({name: a for name, a in arrays.items() if name != "fc"})
    with pytest.raises(InputError, match="has shape"):
        net.load_tfjs({**arrays, "fc": arrays["fc"].T})


def test_a_turned_face_is_set_upright_in_the_chip() -> None:
    matrix, shift = similarity_transform(MEAN_FACE, MEAN_FACE @ np.array([[0, 2], [-2, 0]]) + [5, 7])
    assert np.allclose(matrix, [[0, -2], [2, 0]]) and np.allclose(shift, [5, 7])
    # a picture, four times as large as the chip, with a mark at each point: the marks land on the mean face
    frame = np.zeros((600, 600, 3), np.uint8)
    points = 100 + MEAN_FACE * 400
    for x, y in points.round().astype(int):
        frame[y - 8:y + 8, x - 8:x + 8] = 255
    chip = face_chip(frame, points)
    assert chip.shape == (150, 150, 3)
    for x, y in ((MEAN_FACE + 0.25) / 1.5 * 150).round().astype(int):
        assert chip[y, x].min() > 128
    assert chip.mean() < 20


def test_distance_to_several_references_leaves_lost_faces_out() -> None:
    reference = np.stack([np.zeros(128), np.full(128, np.nan)])
    e = np.stack([np.zeros(128), np.eye(128)[0] * 3, np.full(128, np.nan)])
    assert face_distance(e, reference)[:2].tolist() == [0, 3] and np.isnan(face_distance(e, reference)[2])
    assert np.isnan(face_distance(e, reference[1:])).all()


@needs("face_identity", "mediapipe_face", "grid")
def test_one_person_stays_one_person_at_both_sizes(grid_clips: list) -> None:
    pytest.importorskip("ai_edge_litert")
    from PIL import Image

    faces = FaceIdentity(DATA / "face_identity", MESH)
    for size in (160, 96):
        frames = np.stack([np.asarray(Image.fromarray(f).resize((size, size), Image.Resampling.BILINEAR))
                           for clip, _ in grid_clips for f in clip[[0, 40]]])
        found = faces.embed(frames)
        assert found.shape == (8, 128) and found.dtype == np.float64 and np.isfinite(found).all()
        distances = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(found, 2)]
        print(f"one person at {size}: mean {np.mean(distances):.3f}, largest {max(distances):.3f}")
        assert 0.1 < np.mean(distances) < 0.3 and max(distances) < 0.4
        assert np.array_equal(found, faces.embed(frames))
    nobody = np.random.default_rng(0).integers(0, 255, (2, 96, 96, 3), np.uint8)
    assert np.isnan(faces.embed(nobody)).all() and np.isnan(face_distance(faces.embed(nobody), found[0])).all()


def test_missing_face_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="manifest"):
        FaceIdentity(tmp_path, MESH)
    with pytest.raises(InputError, match="face mesh"):
        FaceMesh(tmp_path / "nothing.tflite")


# voices

def test_voice_windows_cover_the_sound() -> None:
    assert window_starts(100) == [0] and window_starts(25600) == [0]
    assert window_starts(48000) == [0, 77, 154]  # the third has 146 of its 160 frames
    assert window_starts(41600) == [0, 77]  # a third would have 106


def test_a_voice_is_a_unit_vector_whatever_its_loudness(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {name: p.half() for name, p in VoiceNetwork().state_dict().items()}
    torch.save({"model_state": {**state, "similarity_weight": torch.zeros(1)}}, tmp_path / "voice.pt")
    voice = VoiceIdentity(tmp_path / "voice.pt")
    wave = 0.001 * np.random.default_rng(0).standard_normal(30000)
    found = voice.embed(wave)
    assert found.shape == (256,) and np.linalg.norm(found) == pytest.approx(1)
    assert similarity(found, voice.embed(5 * wave)) == pytest.approx(1)  # both below -30 dBFS: raised to it
    assert np.array_equal(found, voice.embed(torch.from_numpy(wave)))
    assert np.isnan(voice.embed(np.zeros(16000))).all()
    with pytest.raises(InputError, match="not empty"):
        voice.embed(np.zeros(0))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for name, message in (("other.pt", "not a Resemblyzer"), ("text.pt", "not a Resemblyzer"), ("no.pt", "not exist")):
        with pytest.raises(InputError, match=message):
            VoiceIdentity(tmp_path / name)


@needs("speaker_identity", "grid", "speech")
def test_one_speaker_is_nearer_than_another(grid_clips: list) -> None:
    voice = VoiceIdentity(DATA / "speaker_identity" / "resemblyzer_fp16.pt")
    grid = [voice.embed(sound) for _, sound in grid_clips]
    other = [voice.embed(read_sound(DATA / "speech" / f"LJ001-000{i}.wav", 16000)) for i in (2, 8)]
    same = float(np.mean([similarity(a, b) for a, b in itertools.combinations(grid, 2)]))
    different = float(np.mean([similarity(a, b) for a in grid for b in other]))
    print(f"one speaker {same:.3f}, another {different:.3f}")
    assert same > 0.75 and different < 0.5 and similarity(other[0], other[1]) > 0.7


# sound quality

def test_dnsmos_doubles_short_sounds_and_steps_by_a_second() -> None:
    assert len(windows(np.ones(16000 * 3))) == 3  # doubled to 12 s
    assert len(windows(np.ones(144160))) == 1 and len(windows(np.ones(16000 * 11))) == 2
    assert {len(w) for w in windows(np.arange(16000 * 7.0))} == {144160}
    with pytest.raises(InputError, match="not empty"):
        windows(np.zeros(0))


@needs("dnsmos", "speech")
def test_dnsmos_prefers_speech_to_noise() -> None:
    pytest.importorskip("onnxruntime")
    dnsmos = Dnsmos(DATA / "dnsmos")
    speech = dnsmos.score(read_sound(DATA / "speech" / "LJ001-0001.wav", 16000))
    noise = dnsmos.score(0.1 * np.random.default_rng(0).standard_normal(16000 * 10))
    print(speech, noise)
    assert speech.overall == pytest.approx(3.3, abs=0.1) and noise.overall == pytest.approx(1.1, abs=0.1)
    assert speech.p808 > 3.5 > 2.5 > noise.p808


def test_missing_and_damaged_quality_networks_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sig_bak_ovr.onnx does not exist"):
        Dnsmos(tmp_path)
    pytest.importorskip("onnxruntime")
    (tmp_path / "sig_bak_ovr.onnx").write_text("no network")
    with pytest.raises(InputError, match="cannot be read"):
        Dnsmos(tmp_path)
