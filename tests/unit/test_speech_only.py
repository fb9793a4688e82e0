"""The orchestrator alone in the chunk loop: its own head makes the sound, pictures stay noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.evaluating import short
from pipelines.model_card import _measured
from pipelines.run_directory import RunDirectory
from streamchar.diffusion.noise import NoiseKey
from streamchar.evaluation.report import TITLES, Report
from streamchar.evaluation.speech_only import SpeechOnlyDenoiser
from streamchar.rollout.chunk_loop import generate_chunk
from streamchar.rollout.plan import SamplePlan
from tests import tiny_models as tiny

WORDS = [["bin", "red", "at"], ["set", "blue"]]


@torch.no_grad()
def test_the_head_makes_the_sound_and_pictures_stay_noise():
    whole = tiny.character()
    alone = replace(whole, denoiser=SpeechOnlyDenoiser(whole.orchestrator, whole.denoiser.config))
    memory = alone.start(tiny.streams(WORDS), seed=3)
    conditions, _ = memory.conditions()
    result = generate_chunk(alone, memory, SamplePlan((1.0, 0.0), renoise=False))  # one Euler step
    key = NoiseKey.of(3, memory.index, "stream", 0).at(chunk=0, step=0)
    eps = key.normal(result.latents.audio.shape[1:], "audio", torch.device("cpu"))
    c_a = alone.orchestrator.block(alone.orchestrator.prefix(conditions), eps, torch.ones(2))
    torch.testing.assert_close(result.latents.audio, eps - alone.orchestrator.velocity(c_a, eps))
    noise = key.normal(result.latents.video.shape[1:], "video", torch.device("cpu"))
    torch.testing.assert_close(result.latents.video, noise)
    assert bool((result.pointer_after >= result.pointer_before).all())


def test_an_evaluation_shows_it_as_itself_and_as_no_teacher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cfg = compose(parse(["stage=evaluate", "preset=tiny", "name=t", f"root={tmp_path}", "from=orchestrator"]))
    directory = RunDirectory.of(cfg)
    monkeypatch.setattr(short, "load_speech", lambda *_: tiny.character())
    monkeypatch.setattr(short, "plan_of", lambda *_: None)
    speaker, = short.speakers_of(cfg, directory)
    assert speaker.column == "own_head"
    report = Report("", {"model": TITLES[speaker.column]})
    report.measure("words", "word errors", {speaker.column: [1.0, 2.0]})
    report.save(directory.stage("evaluate"))
    for name in ("table.txt", "index.html"):
        text = (directory.stage("evaluate") / name).read_text()
        assert "orchestrator's own head" in text and "teacher</th>" not in text and " teacher " not in text
    assert report.metrics() == {"eval/words/word_errors/own_head": 1.5}
    card = _measured(directory, "teacher", "teacher")
    assert "of another model" in card and "| 1.5 |" in card and "teacher" not in card
