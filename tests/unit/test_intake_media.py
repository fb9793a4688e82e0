"""Reading recordings on one clock, shots, tracks, crops, loudness, sharpness; and forced alignment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.intake.alignment import CtcAligner, time_words
from datamodules.intake.containers import Pictures, probe, read_sound
from datamodules.intake.crop import cut, plan_crop
from datamodules.intake.face_detector import Face, FaceDetector
from datamodules.intake.face_track import FaceTrack, link, main_track, rivals
from datamodules.intake.loudness import clipped_share, loudness, normalise
from datamodules.intake.rejection import Rejected
from datamodules.intake.sharpness import sharpness
from datamodules.intake.shots import ShotDetector
from datamodules.intake.silero import SileroVad
from datamodules.intake.transcripts import Cue
from datamodules.intake.voice_activity import speech_spans
from streamchar.errors import InputError
from streamchar.streaming.reading import read_sound as read_whole
from tests.intake_fakes import RATE, draw, syllables, write_video

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def needs(*folders: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not all((DATA / f).is_dir() for f in folders),
                              reason=f"needs ../shared/data/{{{','.join(folders)}}}")


def flashes(frames: list[np.ndarray], fps: float) -> list[float]:
    """Seconds at which the picture becomes bright."""
    light = np.array([f.mean() for f in frames]) > 128
    return [(i + 0.5) / fps for i in np.flatnonzero(light[1:] & ~light[:-1]) + 1]


def beeps(wave: np.ndarray) -> list[float]:
    """Seconds at which the sound becomes loud."""
    loud = np.convolve(np.abs(wave), np.ones(160) / 160, "same") > 0.05
    at = np.flatnonzero(loud[1:] & ~loud[:-1]) / RATE
    return [float(t) for i, t in enumerate(at) if i == 0 or t - at[i - 1] > 0.1]


@pytest.mark.parametrize("kind", ["24 fps", "variable rate", "late sound", "early picture"])
def test_pictures_and_sound_stay_together(tmp_path: Path, kind: str) -> None:
    """Flashes and beeps at the same instants of the recording, whatever its rates."""
    rate = 24.0 if kind == "24 fps" else 30.0
    count = int(6 * rate)
    times = np.arange(count) / rate
    instants = (1.0, 2.5, 4.5)
    if kind == "variable rate":
        drawn = np.random.default_rng(0).uniform(0, 6, count)
        times = np.unique(np.round([0.0, *instants, *drawn], 3))
    bright = np.array([any(at <= t < at + 0.4 for at in instants) for t in times])
    frames = np.where(bright[:, None, None, None], 220, 20).astype(np.uint8) * np.ones((1, 32, 32, 3), np.uint8)
    begin = 0.5 if kind == "late sound" else 0.0
    seconds = np.arange(round((6 - begin) * RATE)) / RATE + begin
    level = np.zeros(len(seconds))
    for at in instants:
        level[(seconds >= at) & (seconds < at + 0.4)] = 0.9
    shift = 0.7 if kind == "early picture" else 0.0  # the file's time stamps need not begin at zero
    path = write_video(tmp_path / "a.mkv", frames, level, rate, times + shift, begin + shift)
    recording = probe(path)
    seen = flashes(list(Pictures(recording, 25.0)), 25.0)
    heard = beeps(read_sound(recording, RATE))
    assert len(seen) == len(heard) == 3
    assert np.abs(np.array(seen) - np.array(heard)).max() < 0.045, (seen, heard)
    assert np.abs(np.array(heard) - np.array(instants)).max() < 0.02, heard


def test_a_part_is_what_the_whole_shows_there(tmp_path: Path) -> None:
    level = syllables(28.0, ((0.0, 28.0),))
    path = write_video(tmp_path / "a.mp4", draw(level, 25.0), level)
    recording = probe(path)
    whole = list(Pictures(recording, 25.0))
    assert len(whole) == 700 and (recording.width, recording.height) == (96, 96)
    for first in (30, 600):  # read from the start, and sought
        part = list(Pictures(recording, 25.0, first, first + 5))
        assert len(part) == 5
        assert all(np.array_equal(a, b) for a, b in zip(part, whole[first:first + 5], strict=True))


def test_what_is_no_recording_is_rejected(tmp_path: Path) -> None:
    for name, body in (("a.mp4", b"no video"), ("b.mp4", b""), ("c.mp4", bytes(range(256)) * 40)):
        (tmp_path / name).write_bytes(body)
        with pytest.raises(Rejected) as no:
            probe(tmp_path / name)
        assert no.value.reason == "unreadable" and no.value.detail == "Invalid data found when processing input"
    (tmp_path / "train-clean-100.tar.gz").write_bytes(b"packed")
    with pytest.raises(Rejected, match="an archive: unpack it"):
        probe(tmp_path / "train-clean-100.tar.gz")
    silent = probe(write_video(tmp_path / "d.mp4", draw(np.zeros(RATE), 25.0), None))
    with pytest.raises(Rejected, match="no sound"):
        read_sound(silent, RATE)


def test_a_damaged_video_gives_what_precedes_the_damage(tmp_path: Path) -> None:
    level = syllables(6.0, ((0.0, 6.0),))
    path = write_video(tmp_path / "a.ts", draw(level, 25.0), level)
    whole = len(list(Pictures(probe(path), 25.0)))
    body = path.read_bytes()
    path.write_bytes(body[:len(body) // 2])
    assert 20 < len(list(Pictures(probe(path), 25.0))) < whole


def test_shots_are_cut_at_cuts_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    detector = ShotDetector(0.3)
    frame = rng.integers(0, 90, (40, 60, 3)).astype(np.uint8)
    for i in range(60):
        if i == 25:
            frame = rng.integers(120, 250, (40, 60, 3)).astype(np.uint8)
        moved = np.roll(frame, i % 7, axis=1)
        detector.see(np.clip(moved.astype(int) + i // 3, 0, 255).astype(np.uint8))  # motion and slowly more light
    assert detector.shots() == [(0, 25), (25, 60)]
    assert ShotDetector(0.3).shots() == []


def face(x: float, side: float = 20.0) -> Face:
    return Face(x, 10.0, x + side, 10.0 + side, 0.9)


def test_tracks_follow_people() -> None:
    looks = [(i, [face(10 + i), face(60 - i)] if i != 8 else [face(60 - i)]) for i in range(0, 20, 2)]
    tracks = link(looks, 25.0)
    assert [len(t.frames) for t in tracks] == [10, 9] and tracks[1].faces[-1].x0 == 28
    main = main_track(tracks)
    assert main is tracks[0] and rivals(tracks, main) == 2
    assert rivals([main, FaceTrack([0], [face(0)])], main) == 1  # seen once: a passer-by or a mistake
    assert rivals([main, FaceTrack(main.frames, [face(70, 8.0)] * 10)], main) == 1  # far away
    assert main_track([]) is None
    np.testing.assert_allclose(tracks[0].centres(0, 3)[:, 0], [70, 69, 68])


def test_a_still_head_gets_a_still_square_and_a_moving_one_is_followed() -> None:
    frames = list(range(0, 100, 5))
    still = plan_crop(FaceTrack(frames, [face(40 + (n % 2)) for n in frames]), 0, 100, 25, 2.0, 120, 80)
    assert not still.moves and np.ptp(still.corners, axis=0).max() == 0 and still.side == 40
    moving = plan_crop(FaceTrack(frames, [face(10 + 0.6 * n) for n in frames]), 0, 100, 25, 2.0, 120, 80)
    assert moving.moves and np.abs(np.diff(moving.corners, axis=0)).max() < 1
    assert moving.corners.min() >= 0 and (moving.corners + moving.side <= [120, 80]).all()
    assert plan_crop(FaceTrack(frames, [face(40)] * 20), 0, 100, 25, 9.0, 120, 80).side == 80
    picture = np.zeros((80, 120, 3), np.uint8)
    picture[20:40, 60:80] = 255
    square = cut(picture, np.array([60.0, 20.0]), 20.0, 16)
    assert square.shape == (16, 16, 3) and square.min() > 230


def test_loudness_is_reached_below_the_peak() -> None:
    tone = 0.05 * torch.sin(2 * torch.pi * 997 * torch.arange(3 * RATE) / RATE)
    louder, gain = normalise(tone, RATE, -23.0)
    assert abs(loudness(louder, RATE) + 23) < 0.1 and gain > 0
    spiky = torch.cat([tone * 0.1, torch.tensor([0.9] * 3)])
    assert float(normalise(spiky, RATE, -10.0)[0].abs().max()) <= 10 ** (-1 / 20) + 1e-6
    silence = torch.zeros(RATE)
    assert normalise(silence, RATE, -23.0)[1] == 0.0 and normalise(tone, RATE, None)[0] is tone
    assert clipped_share((tone * 100).clamp(-1, 1)) > 0.5 > 0.0 == clipped_share(tone)


def test_blur_takes_sharpness_away() -> None:
    from PIL import Image, ImageFilter

    board = Image.fromarray(np.kron(np.indices((8, 8)).sum(0) % 2 * 200, np.ones((20, 20))).astype(np.uint8))
    values = [sharpness(np.asarray(board.convert("RGB").filter(ImageFilter.GaussianBlur(r)))) for r in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and values[0] > 3 * values[3]


@needs("mediapipe_face", "grid_raw")
def test_the_detector_finds_a_real_face_and_no_other() -> None:
    pytest.importorskip("ai_edge_litert")
    detector = FaceDetector(DATA / "mediapipe_face" / "face_detector.tflite")
    frame = next(iter(Pictures(probe(DATA / "grid_raw" / "bgbn8n.mpg"), 25.0)))
    (found,) = detector.find(frame)
    assert 100 < found.side < 160 and found.x0 > 60 and found.x1 < 260 and found.score > 0.9
    wide = np.concatenate([np.full_like(frame, 40)] * 2 + [frame], axis=1)  # small in the whole, large in a square
    (moved,) = detector.find(wide)
    assert abs(moved.x0 - found.x0 - 2 * frame.shape[1]) < 0.2 * found.side
    assert detector.find(np.random.default_rng(0).integers(0, 255, frame.shape, np.uint8)) == []


@needs("silero_vad", "grid_raw")
def test_voice_activity_is_where_the_published_words_are() -> None:
    vad = SileroVad.load(DATA / "silero_vad" / "silero_vad_16k.safetensors")
    for align in sorted((DATA / "grid_raw").glob("*.align"))[:3]:
        rows = [line.split() for line in align.read_text().splitlines() if line.strip()]
        words = [(int(s) / 25000, int(e) / 25000) for s, e, w in rows if w not in ("sil", "sp")]
        spans = speech_spans(vad, torch.from_numpy(read_whole(align.with_suffix(".mpg"), 16000)))
        assert abs(spans[0][0] - words[0][0]) < 0.25 and abs(spans[-1][1] - words[-1][1]) < 0.35, (spans, words)
    noise = 0.01 * torch.randn(32000, generator=torch.Generator().manual_seed(0))
    assert speech_spans(vad, noise) == []


def test_missing_model_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="silero_vad_16k.safetensors"):
        SileroVad.load(tmp_path / "x")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be loaded"):
        SileroVad.load(tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match="face_detector.tflite"):
        FaceDetector(tmp_path / "x")
    with pytest.raises(InputError, match="config.json"):
        CtcAligner(tmp_path)


@pytest.fixture(scope="module")
def ctc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random wav2vec2 with its processor, as a user would have it on disk."""
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    folder = tmp_path_factory.mktemp("ctc")
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=False),
                                  Wav2Vec2CTCTokenizer(str(folder / "vocab.json")))
    processor.save_pretrained(folder)
    config = Wav2Vec2Config(vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                            intermediate_size=16, conv_dim=(8,) * 7, num_feat_extract_layers=7, pad_token_id=0,
                            num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    torch.manual_seed(0)
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


def test_a_ctc_model_places_words_in_order(ctc_folder: Path) -> None:
    aligner = CtcAligner(ctc_folder)
    wave = 0.1 * torch.randn(2 * RATE, generator=torch.Generator().manual_seed(0))
    found = aligner.align(wave, ["set", "red", "too"])
    assert found is not None and [w.text for w in found] == ["set", "red", "too"]
    assert all(0 <= a.start < a.end <= b.start for a, b in zip(found, found[1:], strict=False)) and found[-1].end <= 2
    assert aligner.align(wave[:RATE // 10], ["extraordinarily"] * 3) is None
    with pytest.raises(Rejected, match="no letter of 'слово'; give one of the language as intake.aligner"):
        aligner.align(wave, ["слово"])


def test_forced_alignment_finds_planted_letters(ctc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = CtcAligner(ctc_folder)
    scores = torch.full((100, len(aligner._ids)), -9.0)
    scores[:, 0] = 0.0
    for row, letter in ((20, "S"), (22, "O"), (30, "|"), (41, "G"), (44, "O")):
        scores[row, 0], scores[row, aligner._ids[letter]] = -9.0, 0.0
    monkeypatch.setattr(aligner, "_scores", lambda wave: (scores.log_softmax(-1), 0.02))
    tokens = time_words(Cue("-- So, go! --", 0.0, 2.0), torch.zeros(2 * RATE), aligner)
    assert [t.text for t in tokens] == ["So,", "go! --"]
    assert [round(v, 2) for t in tokens for v in (t.start, t.end)] == [0.4, 0.46, 0.82, 0.9]
    aligner._ids |= {"你": aligner._ids["S"], "好": aligner._ids["O"]}  # no border between characters
    tokens = time_words(Cue("「你好。go", 0.0, 2.0), torch.zeros(2 * RATE), aligner)
    assert [t.text for t in tokens] == ["「你", "好。", "go"]
    assert [round(v, 2) for t in tokens for v in (t.start, t.end)] == [0.4, 0.42, 0.44, 0.46, 0.82, 0.9]


def test_a_cue_is_looked_for_around_its_own_time(ctc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Whole:
        def align(self, wave, words):
            from streamchar.transcript import Word

            self.seconds = len(wave) / RATE
            return [Word(w, 0.5, 0.6) for w in words]

    aligner = Whole()
    (token,) = time_words(Cue("hello", 4.0, 5.0), torch.zeros(10 * RATE), aligner)
    assert round(aligner.seconds, 3) == 1.6 and round(token.start, 3) == 4.2
    with pytest.raises(Rejected, match="text does not fit"):
        time_words(Cue("hello", 40.0, 41.0), torch.zeros(10 * RATE), aligner)
