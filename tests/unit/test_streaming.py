"""Prompts from files and the session that drives chunks into an mp4, with codecs that need no fitting."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor

from streamchar.clock import ChunkClock
from streamchar.errors import InputError
from streamchar.orchestrator.text import SpelledWords
from streamchar.streaming.muxer import ClipWriter
from streamchar.streaming.prompt import build_prompt, read_picture, read_voice, transcript_words
from streamchar.streaming.reading import read_clip, read_sound
from streamchar.streaming.session import StreamSession
from streamchar.streaming.sinks import MemorySink
from streamchar.streaming.timing import ChunkTiming, TimingRecord
from streamchar.types import Latents
from streamchar.window import WindowConfig

CLOCK = ChunkClock(fps=24, chunk_frames=33, audio_rate=25, sample_rate=16000)  # 34.375 audio latents per chunk
SAMPLES = 640


class BlockVideo:
    """Latents are 8x8 block means of the group's every fourth frame, three channels."""

    channels, spatial_stride, temporal_stride, fingerprint = 3, 8, 4, "block"

    def encode(self, frames: Tensor) -> Tensor:
        b, f, c, h, w = frames.shape
        blocks = torch.nn.functional.avg_pool2d(frames[:, ::4].flatten(0, 1), 8)
        return blocks.view(b, 1 + (f - 1) // 4, c, h // 8, w // 8).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        big = latents.repeat_interleave(8, 3).repeat_interleave(8, 4).transpose(1, 2)
        return torch.cat([big[:, :1], big[:, 1:].repeat_interleave(4, 1)], 1)


class LateDecoder:
    """Latents are the samples themselves; 100 samples are held back."""

    def __init__(self) -> None:
        self.held = torch.zeros(0)

    def push(self, latents: Tensor) -> Tensor:
        whole = torch.cat([self.held, latents.reshape(-1)])
        self.held = whole[-100:]
        return whole[:-100]

    def flush(self) -> Tensor:
        out, self.held = self.held, torch.zeros(0)
        return out

    def state_dict(self) -> dict[str, Tensor]:
        return {"held": self.held}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.held = state["held"]


class RawSound:
    """640 samples are one latent of 640 channels."""

    channels, latent_rate, sample_rate, lookahead, fingerprint = SAMPLES, 25.0, 16000, 100, "raw"

    def encode(self, wave: Tensor) -> Tensor:
        return wave[:, :wave.shape[1] // SAMPLES * SAMPLES].view(len(wave), -1, SAMPLES)

    def decoder(self) -> LateDecoder:
        return LateDecoder()

    def decode(self, latents: Tensor) -> Tensor:
        return latents.reshape(-1)


@dataclass
class FakeChunk:
    latents: Latents
    audio_owned: int
    chunk: int
    pointer_before: Tensor
    pointer_after: Tensor


def chunks(wave: Tensor, count: int, pointers: list[list[float]] | None = None) -> list[FakeChunk]:
    """Chunks that carry ``wave`` (S,) at its true times, and pictures whose brightness is the chunk number / 10."""
    latents = wave.view(-1, SAMPLES)
    out = []
    for k in range(count):
        start = CLOCK.audio_start(k)
        audio = latents[start:start + CLOCK.audio_latents]
        video = torch.full((1, 3, CLOCK.video_latents, 4, 4), k / 10)
        at = (lambda i: torch.tensor([p[i] for p in pointers])) if pointers else (lambda i: torch.zeros(1))
        b = len(pointers) if pointers else 1
        out.append(FakeChunk(Latents(video.expand(b, -1, -1, -1, -1), audio.expand(b, -1, -1)), CLOCK.audio_owned(k), k,
                             at(k), at(k + 1)))
    return out


def prompt(pictures: list, voices: list, texts: list[str]) -> object:
    return build_prompt(texts, pictures, voices, video_codec=BlockVideo(), audio_codec=RawSound(), clock=CLOCK,
                        window=WindowConfig(anchor_s=1.0), size=(32, 32), units=SpelledWords())


def test_sound_of_a_stream_is_exact_at_a_rate_with_fractional_latents() -> None:
    count = 7
    wave = torch.rand((CLOCK.audio_start(count) + 1) * SAMPLES)
    sink = MemorySink(24, 16000)
    record = StreamSession(CLOCK, BlockVideo(), RawSound(), [sink]).run(chunks(wave, count))
    assert len(sink.frames) == 33 * count
    assert len(sink.sound) == int(33 * count * 16000 / 24)
    assert np.array_equal(sink.sound, wave.numpy()[:len(sink.sound)])  # nothing doubled, lost or moved
    assert [int(round(f.mean() / 25.5)) for f in sink.frames[::33]] == list(range(count))
    assert len(record.chunks) == count


def test_each_stream_of_a_batch_ends_one_quiet_chunk_after_its_own_text() -> None:
    pointers = [[0, 1, 2, 2, 2, 2], [0, 1, 2, 3, 4, 5]]
    sinks = [MemorySink(24, 16000) for _ in pointers]
    wave = torch.rand(CLOCK.audio_start(6) * SAMPLES)
    StreamSession(CLOCK, BlockVideo(), RawSound(), sinks, [2, 4]).run(chunks(wave, 5, pointers))
    assert [len(s.frames) // 33 for s in sinks] == [3, 5]
    assert all(len(s.sound) == len(s.frames) * 16000 // 24 for s in sinks)


def test_interrupted_session_leaves_a_file_that_plays(tmp_path: Path) -> None:
    def interrupted():
        yield from chunks(torch.rand(CLOCK.audio_start(3) * SAMPLES) * 0.1, 2)
        raise KeyboardInterrupt

    out = tmp_path / "clip.mp4"
    session = StreamSession(CLOCK, BlockVideo(), RawSound(), [ClipWriter(out, (32, 32), 24, 16000)])
    with pytest.raises(KeyboardInterrupt):
        session.run(interrupted())
    frames, sound, _ = read_clip(out, 16000)
    assert len(frames) == 66 and len(sound) == 66 * 16000 // 24


def test_timing_counts_deadline_misses_against_the_playback_clock(tmp_path: Path) -> None:
    record = TimingRecord(1.0)
    for ready in (2.0, 2.9, 4.5, 5.0, 5.9):  # due at 2, 3, 4, 5, 6
        record.add(ChunkTiming(0.8, 0.05, 0.05, 0.1, ready))
    s = record.summary()
    assert s["first_chunk_s"] == 2.0 and s["deadline_misses"] == 1 and s["worst_late_s"] == pytest.approx(0.5)
    assert s["real_time_factor"] == pytest.approx(1.0) and s["chunk_p50_s"] == pytest.approx(1.0)
    record.save(tmp_path / "timing.json")
    saved = json.loads((tmp_path / "timing.json").read_text())
    assert len(saved["chunks"]) == 5 and saved["summary"]["chunks"] == 5
    assert record.table().row_count == 5
    assert TimingRecord(1.0).summary() == {} and "no chunk" in TimingRecord(1.0).table().title


def test_prompt_crops_the_picture_and_aligns_the_voice_right(tmp_path: Path) -> None:
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = 255  # only the middle square is white
    Image.fromarray(pixels).save(tmp_path / "face.png")
    t = np.arange(16000 * 2)
    soundfile.write(tmp_path / "long.wav", 0.5 * np.sin(t * 0.1), 16000)
    soundfile.write(tmp_path / "short.wav", 0.5 * np.sin(t[:8000] * 0.1), 16000)
    batch = prompt([read_picture(tmp_path / "face.png", (32, 32)), None],
                   [read_voice(tmp_path / "long.wav", 16000, 1.0), read_voice(tmp_path / "short.wav", 16000, 1.0)],
                   ["Hello there", ""])
    assert batch.ref.shape == (2, 3, 1, 4, 4) and batch.ref[0].min() > 0.99 and batch.ref[1].abs().max() == 0
    assert batch.has_ref.tolist() == [True, False]
    assert batch.anchor_mask.sum(1).tolist() == [25, 12] and bool(batch.anchor_mask[1, -12:].all())
    assert batch.anchor[1, :13].abs().max() == 0
    assert torch.allclose(batch.anchor[0].reshape(-1), torch.sin(torch.arange(16000, 32000) * 0.1) * 0.5, atol=1e-3)
    assert batch.words == [["hello", "there"], []]


def test_what_is_missing_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        batch = prompt([None], [None], [""])
    assert not batch.anchor_mask.any() and not batch.has_ref.any()
    for line in ("no reference picture", "no voice prompt", "keeps quiet"):
        assert sum(line in r.message for r in caplog.records) == 1


def test_unknown_characters_survive_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert transcript_words("Caf\u00e9 \u65e5\u672c, it's \u263a ok!", SpelledWords()) == [
            "caf\u00e9", "\u65e5", "\u672c", "it's", "ok"]
    assert all(repr(c) in caplog.text for c in "\u00e9\u65e5\u672c\u263a") and "','" not in caplog.text
    caplog.clear()
    transcript_words("Plain: text, with 3 marks...", SpelledWords())
    assert not caplog.records


def test_bad_prompts_are_input_errors(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_text("not a picture")
    (tmp_path / "noise.wav").write_text("not a sound")
    whole = np.zeros((40, 40, 3), np.uint8)
    Image.fromarray(whole).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "blip.wav", 0.5 * np.ones(400), 16000)
    for name, words in (("face.png", "no picture"), ("cut.png", "no picture"), ("gone.png", "does not exist")):
        with pytest.raises(InputError, match=words):
            read_picture(tmp_path / name, (32, 32))
    for name, words in (("noise.wav", "cannot decode"), ("silent.wav", "silent"), ("empty.wav", "no samples"),
                        ("gone.wav", "does not exist"), ("blip.wav", "at least")):
        with pytest.raises(InputError, match=words):
            read_voice(tmp_path / name, 16000, 1.0)
    with ClipWriter(tmp_path / "a.mp4", (32, 32), 25, 16000) as writer:
        writer.write(np.zeros((5, 32, 32, 3), np.uint8), np.zeros(0))
    assert len(read_sound(tmp_path / "a.mp4", 16000)) >= 3200
    with pytest.raises(InputError, match="no sound track|cannot decode"):
        read_sound(tmp_path / "whole.png", 16000)


def test_sound_of_another_rate_and_stereo_is_resampled(tmp_path: Path) -> None:
    t = np.arange(22050) / 22050
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "a.flac", np.stack([tone, tone], 1), 22050)
    wave = read_sound(tmp_path / "a.flac", 16000)
    assert len(wave) == 16000
    assert np.abs(np.fft.rfft(wave)).argmax() == 440
