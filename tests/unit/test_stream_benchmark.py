"""``benchmarks/stream.py``: the presets' sizes, FLOPs that agree with torch's counter, a run from end to end."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import stream
from benchmarks.stream_floor import chunk_parts, denoiser_weights
from benchmarks.stream_parts import PRESETS, grid_of, missing, random_character, spec_of, video_decoder
from pipelines.config.compose import compose
from pipelines.config.geometry import geometry
from pipelines.config.grammar import parse
from streamchar.diffusion.noise import NoiseKey
from streamchar.hub.random_batches import random_streams
from streamchar.rollout.denoise import start_noise

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["1b", "5b"])
def test_sizes_are_the_presets(name: str) -> None:
    cfg = compose(parse([f"preset={name}"]))
    spec, shape = PRESETS[name], geometry(cfg)
    channels = {"video_channels": shape.video_channels, "audio_channels": shape.audio_channels}
    assert replace(cfg.denoiser, **channels) == spec.denoiser
    assert cfg.orchestrator == spec.orchestrator and cfg.window == spec.window and shape.clock == spec.clock
    assert grid_of(name, "512x512") == (32, 32) and grid_of(name, "480x832") == (30, 52)


@pytest.mark.parametrize("name", ["1b", "5b"])
def test_counted_weights_are_those_of_the_blocks(name: str) -> None:
    with torch.device("meta"):
        model = PRESETS[name].build_denoiser()
    matrices = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    assert matrices == denoiser_weights(PRESETS[name].denoiser)


def test_flops_agree_with_torch_s_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamchar.nn.attention.backend", lambda *_: "plain")
    tiny, grid = PRESETS["tiny"], grid_of("tiny", "tiny")
    # wide enough that what is not counted, projections in and out and of the time, is a small part
    spec = replace(tiny, denoiser=replace(tiny.denoiser, width=192, layers=12, heads=2, ffn=768, audio_ffn=384,
                                          frame_condition=False))
    who = random_character(spec, video_decoder("pca", spec, CPU), CPU)
    c, _ = who.start(random_streams(spec, grid, 1, 9)).conditions()
    parts = {p.name: p.flops for p in chunk_parts(spec, grid, 4)}
    with torch.no_grad():
        prefix, context = who.orchestrator.prefix(c), who.denoiser.encode_context(c)
        x, sigma = start_noise(c, who.denoiser, NoiseKey.of(0, [0])), torch.ones(1)
        c_a = who.orchestrator.block(prefix, x.audio, sigma)
        for name, act in (("denoiser context", lambda: who.denoiser.encode_context(c)),
                          ("denoising step", lambda: who.denoiser(x, sigma, c_a, context, c.audio_time))):
            counter = FlopCounterMode(display=False)
            with counter:
                act()
            assert counter.get_total_flops() == pytest.approx(parts[name], rel=0.1), name


def test_the_tiny_decoder_gives_a_chunk_of_frames() -> None:
    frames = video_decoder("tae", PRESETS["5b"], CPU).decode(torch.randn(1, 48, 3, 2, 2))
    assert frames.shape == (1, 9, 3, 32, 32) and frames.min() >= 0 and frames.max() <= 1
    assert not missing("tae")


def test_every_preset_can_be_heard_through_ltx2() -> None:
    """With the channels that the production presets have for it."""
    channels = PRESETS["5b"].denoiser.audio_channels
    assert [spec_of(preset, "ltx2").denoiser.audio_channels for preset in PRESETS] == [channels] * len(PRESETS)
    assert spec_of("tiny") == PRESETS["tiny"] and spec_of("5b", "ltx2") == PRESETS["5b"]


def test_it_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                          tmp_path: Path) -> None:
    lines = tmp_path / "cases.json"
    monkeypatch.setattr(sys, "argv", ["stream.py", "--chunks", "3", "--engine", "graphs", "--device", "cpu",
                                      "--no-peer", "--characters", "2", "--json", str(lines)])
    monkeypatch.setattr(stream, "REPEATS", 1)
    monkeypatch.setattr(stream, "bandwidth", lambda device: 1e10)
    monkeypatch.setattr(stream, "peak", lambda device, dtype: 1e10)
    assert stream.main() == 0
    said = capsys.readouterr().out
    assert "| denoising step | 4 |" in said and "| mux (CPU) | 1 |" in said and " of 3 |" in said
    case = json.loads(lines.read_text())
    assert case["engine"] == "graphs" and case["stream"]["streams"] == 2 and case["parts_s"]["audio decode"] > 0
