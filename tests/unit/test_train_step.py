"""``benchmarks/train_step.py``: the presets' sizes, a step that learns, FLOPs that agree with the formula."""

from __future__ import annotations

import dataclasses
import weakref

import pytest
import torch

from benchmarks.train_step import PRESETS, Setting, Step, count_flops
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from streamchar.denoiser.flops import context_flops, step_flops
from streamchar.hub.random_batches import random_chunks

SETTING = Setting(torch.device("cpu"), 2, False, "keep", torch.float32)


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_are_the_presets(name: str) -> None:
    spec, grid = PRESETS[name]
    cfg = compose(parse([f"preset={name}", "--cfg"]))
    codecs = {"video_channels": spec.denoiser.video_channels, "audio_channels": spec.denoiser.audio_channels}
    assert spec.denoiser == dataclasses.replace(cfg.denoiser, **codecs)
    assert (spec.orchestrator, spec.window, spec.diffusion) == (cfg.orchestrator, cfg.window, cfg.diffusion)
    assert (spec.clock.fps, spec.clock.chunk_frames, spec.size) == (cfg.clock.fps, cfg.clock.chunk_frames,
                                                                    cfg.data.size)
    assert grid * 8 == spec.size


@pytest.mark.parametrize("name, moved", [("teacher", ("student", "orchestrator")), ("dmd", ("student", "critic")),
                                         ("critic", ("critic",)), ("rollout", ("student", "critic"))])
def test_a_step_moves_what_learns_and_nothing_else(name: str, moved: tuple[str, ...]) -> None:
    step = Step(name, *PRESETS["tiny"], SETTING)
    models = {n: m for n, m in vars(step).items() if isinstance(m, torch.nn.Module)}
    before = {n: [p.detach().clone() for p in m.parameters()] for n, m in models.items()}
    step.run(1)
    for key, model in models.items():
        same = all(torch.equal(a, b) for a, b in zip(before[key], model.parameters(), strict=True))
        assert same == (key not in moved), key


def test_counted_flops_are_those_of_the_formula() -> None:
    spec, grid = PRESETS["tiny"]
    step = Step("critic", spec, grid, SETTING)
    forward = SETTING.batch * (context_flops(spec.denoiser, spec.clock, spec.window, grid)
                               + step_flops(spec.denoiser, spec.clock, spec.window, grid))
    # The student's context and two steps without gradient, the critic's forward and backward (three times a forward);
    # the counter sees the orchestrator and the layers around the blocks too.
    assert 4 * forward < count_flops(step) < 8 * forward


def test_models_that_were_only_counted_are_given_back() -> None:
    step = Step("critic", *PRESETS["tiny"], SETTING)
    seen = [weakref.ref(m) for m in (step.student, step.teacher, step.critic)]
    count_flops(step)
    del step
    assert [ref() for ref in seen] == [None] * 3  # without waiting for the collector


def test_random_batches_are_a_function_of_their_place() -> None:
    spec, grid = PRESETS["tiny"]
    one, again, other = (random_chunks(spec, 3, grid, first=first) for first in (0, 0, 3))
    assert torch.equal(one.target.video, again.target.video) and not torch.equal(one.target.video, other.target.video)
    assert other.index.tolist() == [3, 4, 5] and one.conditions.todo.mask.sum(1).tolist() == [3, 3, 3]
