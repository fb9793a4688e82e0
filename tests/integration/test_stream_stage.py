"""Stage stream on a random tiny character: files in, mp4 out; what it refuses; what an interruption leaves."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor

from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory
from pipelines.stages import stream
from streamchar.errors import InputError
from streamchar.rollout.character import Character
from streamchar.streaming.config import StreamConfig
from streamchar.streaming.reading import read_clip
from tests.tiny_models import AUDIO, CHANNELS, GRID, character

SAMPLES = 640


class PlainVideo:
    """Block means as latents; the first three channels are shown."""

    channels, spatial_stride, temporal_stride, fingerprint = CHANNELS, 8, 4, "plain"

    def encode(self, frames: Tensor) -> Tensor:
        blocks = torch.nn.functional.avg_pool2d(frames[:, ::4].flatten(0, 1), 8)
        grid = blocks.view(len(frames), -1, 3, GRID, GRID).transpose(1, 2)
        return torch.cat([grid, grid[:, :1]], 1)

    def decode(self, latents: Tensor) -> Tensor:
        big = latents[:, :3].repeat_interleave(8, 3).repeat_interleave(8, 4).transpose(1, 2).sigmoid()
        return torch.cat([big[:, :1], big[:, 1:].repeat_interleave(4, 1)], 1)


class PlainDecoder:
    def push(self, latents: Tensor) -> Tensor:
        return latents.mean(1).repeat_interleave(SAMPLES) * 0.1

    def flush(self) -> Tensor:
        return torch.zeros(0)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert not state


class PlainSound:
    channels, latent_rate, sample_rate, lookahead, fingerprint = AUDIO, 25.0, 16000, 0, "plain"

    def encode(self, wave: Tensor) -> Tensor:
        return wave[:, :wave.shape[1] // SAMPLES * SAMPLES].view(len(wave), -1, SAMPLES)[..., :AUDIO]

    def decoder(self) -> PlainDecoder:
        return PlainDecoder()

    def decode(self, latents: Tensor) -> Tensor:
        return PlainDecoder().push(latents)


@pytest.fixture
def speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``speak(**options of StreamConfig)`` runs the stage and returns its folder."""
    who: Character = dataclasses.replace(character(), video_codec=PlainVideo(), audio_codec=PlainSound())
    monkeypatch.setattr(stream, "load_character", lambda *_: who)
    Image.fromarray(np.full((50, 70, 3), 120, np.uint8)).save(tmp_path / "face.png")
    soundfile.write(tmp_path / "voice.wav", 0.3 * np.sin(np.arange(16000) * 0.2), 16000)

    def run(**options: object) -> Path:
        given = {"reference": str(tmp_path / "face.png"), "voice": str(tmp_path / "voice.wav"), "limit_s": 5.0}
        cfg = RunConfig(stage="stream", name="t", root=str(tmp_path), stream=StreamConfig(**{**given, **options}))
        cfg.data.size = 32
        directory = RunDirectory(tmp_path, "t")
        directory.stage("stream").mkdir(parents=True, exist_ok=True)
        stream.run(cfg, directory)
        return directory.stage("stream")

    return run


def test_a_clip_and_its_timing(speak, capsys: pytest.CaptureFixture[str]) -> None:
    folder = speak(transcript="place red at c nine again", seconds=3.0)
    frames, sound, fps = read_clip(folder / "clip.mp4", 16000)
    timing = json.loads((folder / "timing.json").read_text())
    chunks = timing["summary"]["chunks"]
    assert fps == 25 and len(frames) == 17 * chunks and len(sound) == len(frames) * 640 and 1 <= chunks <= 5
    assert len(timing["chunks"]) == chunks and timing["facts"]["few_step"] is True
    assert "real-time factor" in capsys.readouterr().out


def test_same_seed_same_clip_and_another_seed_another(speak) -> None:
    first = read_clip(speak(transcript="bin blue", seconds=1.0) / "clip.mp4", 16000)[0]
    again = read_clip(speak(transcript="bin blue", seconds=1.0) / "clip.mp4", 16000)[0]
    other = read_clip(speak(transcript="bin blue", seconds=1.0, seed=1) / "clip.mp4", 16000)[0]
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_an_empty_transcript_is_one_quiet_chunk(speak) -> None:
    frames, _, _ = read_clip(speak(transcript="") / "clip.mp4", 16000)
    assert len(frames) == 17


def test_without_picture_and_voice(speak, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "elsewhere" / "x.mp4"
    speak(transcript="hello \u2603 w\u00f6rld", reference="none", voice="none", seconds=0.5, out=str(out))
    assert out.is_file()
    for line in ("no reference picture", "no voice prompt", "'\u2603'"):
        assert line in caplog.text


def test_steps_are_those_asked_for(speak) -> None:
    folder = speak(transcript="hello", seconds=0.5, steps=2)
    assert json.loads((folder / "timing.json").read_text())["facts"]["steps"] == 2


def test_a_live_stream_says_what_is_typed_and_ends_with_its_input(
        speak, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("bin blue\n=red\n"))
    with caplog.at_level(logging.INFO):
        folder = speak(live=True, seconds=2.0)
    frames, sound, _ = read_clip(folder / "clip.mp4", 16000)
    assert 17 <= len(frames) <= 51 and len(sound) == len(frames) * 640
    assert "append bin blue" in caplog.text and "replace red" in caplog.text
    assert re.search("of [123] words", capsys.readouterr().out)


def test_bad_prompts_stop_before_a_file_is_written(speak, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for options, words in (({"reference": str(tmp_path / "text.png")}, "no picture"),
                           ({"reference": str(tmp_path / "gone.png")}, "does not exist"),
                           ({"voice": str(tmp_path / "gone.wav")}, "does not exist"),
                           ({"voice": str(tmp_path / "text.png")}, "no sound track|cannot decode")):
        with pytest.raises(InputError, match=words):
            speak(transcript="hello", **options)
    assert not (tmp_path / "t" / "stream" / "clip.mp4").exists()


def test_ctrl_c_leaves_a_clip_that_plays_and_says_so(speak, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    whole = stream.stream_chunks

    def interrupted(*arguments: object):
        for k, chunk in enumerate(whole(*arguments)):
            if k == 2:
                raise KeyboardInterrupt
            yield chunk

    monkeypatch.setattr(stream, "stream_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        speak(transcript="place red at c nine again now please", seconds=5.0, reference=None)
    said, folder = capsys.readouterr().out, tmp_path / "t" / "stream"
    frames, sound, _ = read_clip(folder / "clip.mp4", 16000)
    assert len(frames) == 34 and len(sound) == 34 * 640
    assert "was closed and plays" in said and json.loads((folder / "timing.json").read_text())["summary"]["chunks"] == 2
